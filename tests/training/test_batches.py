"""Batches hold every image once per epoch, in an order that the generator alone decides."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.shards.reading.pixels import at_rest
from refine.training.batches import Batches
from refine.training.training_set import Resident

CPU = torch.device("cpu")


def images(count: int, side: int = 4) -> Tensor:
    """Random images uint8 [count, 3, side, side]."""
    return torch.randint(0, 256, (count, 3, side, side), generator=Generator().manual_seed(0), dtype=torch.uint8)


def batches(count: int, size: int, drop_last: bool = False) -> Batches:
    """Batches of random images, each told with its row."""
    return Batches(Resident(images(count), (torch.arange(count),)), size, drop_last, 100, CPU)


def order(of: Batches, seed: int = 1) -> list[int]:
    """The rows of one epoch, in order."""
    return [row for batch in of.epoch(seed) for row in batch.fields[0].tolist()]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_an_epoch_holds_every_image_once_or_all_but_the_last_smaller_batch(
    count: int, size: int, drop_last: bool
) -> None:
    whole, rest = divmod(count, size)
    if drop_last and whole == 0:
        with pytest.raises(UserError):
            batches(count, size, drop_last)
        return
    epoch = batches(count, size, drop_last)
    rows = [batch.fields[0].tolist() for batch in epoch.epoch(1)]
    expected = [size] * whole + ([rest] if rest and not drop_last else [])
    assert [len(batch) for batch in rows] == expected
    assert len(epoch) == len(expected)
    seen = Counter(row for batch in rows for row in batch)
    assert set(seen.values()) == {1}
    assert set(seen) <= set(range(count))


def test_pixels_are_those_of_the_rows_told_with_them() -> None:
    stored = images(10)
    for batch in batches(10, 4).epoch(1):
        assert batch.pixels.dtype == torch.float32
        assert torch.equal((batch.pixels * 255).round().to(torch.uint8), stored[batch.fields[0]])


def test_pixels_lie_between_0_and_1_in_the_memory_order_of_images_at_rest() -> None:
    extremes = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    extremes[::2] = 255
    for batch in Batches(Resident(extremes, (torch.arange(8),)), 4, False, 100, CPU).epoch(0):
        assert at_rest(batch.pixels).stride() == batch.pixels.stride()
        assert set(batch.pixels.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(batch.pixels.amax(dim=(1, 2, 3)), (batch.fields[0] % 2 == 0).float())


def test_the_seed_of_an_epoch_decides_its_order() -> None:
    of = batches(50, 8)
    assert order(of, 3) == order(of, 3) == order(batches(50, 8), 3)
    assert order(of, 3) != order(of, 4)


def test_the_order_is_not_that_of_the_rows() -> None:
    assert order(batches(50, 8)) != list(range(50))


def test_torchs_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = order(batches(50, 8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert order(batches(50, 8)) == first


def test_a_batch_that_no_epoch_can_fill_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        batches(7, 8, drop_last=True)
    assert str(refused.value) == "a batch of 8 images cannot be cut from 7; lower batch_size"
    assert len(batches(8, 8, drop_last=True)) == 1


def test_no_images_make_no_epoch() -> None:
    with pytest.raises(UserError, match="cannot be cut from 0"):
        batches(0, 8)
