"""The order of an epoch: every sample once, through a buffer, and shared by processes without a rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from refine.core.errors import UserError
from refine.training.order import Columns, Sharing, shuffled


class Stream:
    """Blocks of consecutive numbers, and how many of them were taken."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.taken = 0

    def __iter__(self) -> Iterator[Columns]:
        for size in self.sizes:
            block = torch.arange(self.taken, self.taken + size)
            self.taken += size
            yield block, block * 10


def _order(blocks: list[int], batches: list[int], buffer: int, seed: int = 0) -> list[list[int]]:
    given = shuffled(Stream(blocks), batches, buffer, Generator().manual_seed(seed))
    return [numbers.tolist() for numbers, _ in given]


def _cut(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 40), st.integers(0, 2**40)
)
def test_every_sample_comes_exactly_once(blocks: list[int], size: int, more: int, seed: int) -> None:
    sizes = _cut(sum(blocks), size)
    batches = _order(blocks, sizes, size + more, seed)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(number for batch in batches for number in batch) == list(range(sum(blocks)))


def test_columns_stay_together() -> None:
    for numbers, tens in shuffled(Stream([7, 5, 9]), _cut(21, 4), 6, Generator().manual_seed(1)):
        assert torch.equal(numbers * 10, tens)


def test_what_the_batches_do_not_ask_for_is_left_out() -> None:
    batches = _order([10, 10], [6, 6, 6], 8)
    assert [len(batch) for batch in batches] == [6, 6, 6]
    assert len({number for batch in batches for number in batch}) == 18


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=12), st.integers(1, 4), st.integers(0, 6))
def test_no_more_is_taken_than_the_buffer_and_a_batch_hold(blocks: list[int], size: int, more: int) -> None:
    stream, given, buffer = Stream(blocks), 0, size + more
    for numbers, _ in shuffled(stream, _cut(sum(blocks), size), buffer, Generator().manual_seed(0)):
        given += len(numbers)
        assert int(numbers.max()) < given + buffer
        assert stream.taken - given < buffer + size + max(blocks)


@pytest.mark.parametrize("buffer", [4, 100])
def test_a_buffer_for_everything_gives_each_order_equally_often(buffer: int) -> None:
    counts = Counter(tuple(_order([2, 2], [4], buffer, seed)[0]) for seed in range(2400))
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7  # chi-square, 23 degrees, p = 0.001


@pytest.mark.parametrize("count", [9, 12])
def test_batches_are_equally_likely_to_hold_each_sample_of_the_buffer(count: int) -> None:
    firsts = Counter(_order([count], _cut(count, 2), 6, seed)[0][0] for seed in range(1800))
    assert set(firsts) == set(range(6))
    assert sum((number - 300) ** 2 / 300 for number in firsts.values()) < 20.5  # 5 degrees, p = 0.001


def test_the_seed_decides() -> None:
    orders = [_order([9, 9, 9], _cut(27, 4), 10, seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


SHARED = (st.integers(1, 60), st.integers(1, 6), st.integers(1, 4), st.booleans())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(*SHARED)
def test_processes_share_every_sample_in_as_many_steps_as_each_other(
    samples: int, each: int, world: int, drop_last: bool
) -> None:
    shares = [(samples, each * world, drop_last, rank, world) for rank in range(world)]
    if samples < world or (drop_last and samples < each * world):
        with pytest.raises(UserError, match="cannot be cut from"):
            Sharing(*shares[0])
        return
    sharing = [Sharing(*share) for share in shares]
    assert len({share.steps for share in sharing}) == 1
    assert all(len(share.sizes) == len(share.shares) == share.steps for share in sharing)
    assert all(min(share.sizes) >= 1 for share in sharing)
    for step in zip(*(share.shares for share in sharing), strict=True):
        assert sum(step) == pytest.approx(world)
    for step in zip(*(zip(share.sizes, share.shares, strict=True) for share in sharing), strict=True):
        assert len({round(weight / size, 9) for size, weight in step}) == 1
    total = sum(sum(share.sizes) for share in sharing)
    assert total == (samples // (each * world) * each * world if drop_last else samples)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_parts_of_all_processes_are_every_sample_once(sizes: list[int], world: int, randomness: object) -> None:
    samples = sum(sizes)
    if samples < world:
        return
    order = list(range(len(sizes)))
    randomness.shuffle(order)  # type: ignore[attr-defined]
    seen: Counter[tuple[int, int]] = Counter()
    for rank in range(world):
        sharing = Sharing(samples, world, False, rank, world)
        parts = sharing.parts(order, sizes)
        assert sum(part.stop - part.start for part in parts) == sum(sharing.sizes)
        assert [part.number for part in parts] == [number for number in order if number in {p.number for p in parts}]
        seen.update((part.number, place) for part in parts for place in range(part.start, part.stop))
    assert seen == Counter({(number, place): 1 for number, size in enumerate(sizes) for place in range(size)})


def test_one_process_cuts_as_always() -> None:
    assert Sharing(10, 4, False).sizes == [4, 4, 2]
    assert Sharing(10, 4, True).sizes == [4, 4]
    assert Sharing(9, 4, False).sizes == [4, 4, 1]
    assert Sharing(10, 4, False).shares == [1.0, 1.0, 1.0]


def test_a_last_batch_that_not_all_processes_could_share_joins_the_one_before_it() -> None:
    assert [Sharing(9, 4, False, rank, 2).sizes for rank in (0, 1)] == [[2, 2], [2, 3]]


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="a batch of 10 images cannot be shared by 3 processes; make batch_size"):
        Sharing(100, 10, False, 0, 3)
