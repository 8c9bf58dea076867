"""Which test images the diagnostics look at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.evaluation.metrics import Truth
from refine.evaluation.test_sets import TestSets, choose, halves, one_of_each
from tiny import attack, poisoned, raw

SIZES = (20, 20, 4)


def _labels(sizes: tuple[int, ...]) -> Tensor:
    """Sorted by class, as a folder of images is."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def _truth(sizes: tuple[int, ...] = SIZES, target: int = 0) -> Truth:
    labels = _labels(sizes)
    rows = (labels != target).nonzero().flatten()
    return Truth(labels, rows, torch.full_like(rows, target))


def test_halves_hold_different_images_of_the_same_classes() -> None:
    labels = _labels(SIZES)
    first, second = halves(labels)
    assert sorted(torch.cat((first, second)).tolist()) == list(range(44))
    assert torch.equal(labels[first], labels[second])


def test_they_are_drawn_at_random_and_the_same_ones_each_time() -> None:
    labels = _labels((400, 400))
    first, second = halves(labels)
    assert torch.equal(first, halves(labels)[0])
    assert abs(first.double().mean() - second.double().mean()) < 20
    assert 0.4 < (first < second).double().mean() < 0.6
    assert len(set((second - first).tolist())) > 100


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_any_number_of_columns_is_spread_over_the_classes(count: int) -> None:
    labels = _labels(SIZES)
    held = [labels[half[:count]].bincount(minlength=3).tolist() for half in halves(labels)]
    assert held[0] == held[1]
    assert max(held[0]) - min(held[0]) <= 1


def test_small_classes_run_out_and_the_others_fill_up() -> None:
    labels = _labels(SIZES)
    assert labels[halves(labels)[0][:10]].bincount().tolist() == [4, 4, 2]


def test_what_classes_of_odd_size_leave_over_comes_last() -> None:
    labels = _labels((3, 1, 5))
    first, second = halves(labels)
    assert labels[first].tolist() == [0, 2, 2, 0]
    assert labels[second].tolist() == [0, 2, 2, 1]
    assert len(set(torch.cat((first, second)).tolist())) == 8


@pytest.mark.parametrize(("asked", "found"), [(5, 5), (1000, 12)])
def test_there_are_as_many_benign_images_as_triggered_ones_in_each_half(asked: int, found: int) -> None:
    truth = _truth()
    chosen = choose(truth, asked)
    assert len(chosen.benign) == len(chosen.triggered) == 2 * found
    assert torch.equal(chosen.mapped_labels, truth.labels[chosen.benign[:found]])
    assert torch.equal(chosen.triggered_labels, truth.behind[chosen.triggered[:found]])


def test_diagnosed_images_are_of_all_classes() -> None:
    chosen = choose(_truth(), 6)
    assert chosen.mapped_labels.bincount(minlength=3).tolist() == [2, 2, 2]
    assert chosen.triggered_labels.bincount(minlength=3).tolist() == [0, 4, 2]


@pytest.mark.parametrize("sizes", [(22, 0), (21, 1)])
def test_without_two_triggered_images_only_benign_ones_are_looked_at(sizes: tuple[int, int]) -> None:
    chosen = choose(_truth(sizes), 5)
    assert len(chosen.benign) == 10
    assert len(chosen.triggered) == len(chosen.triggered_labels) == 0


def test_the_first_of_each_class_then_the_second() -> None:
    assert one_of_each(torch.tensor([0, 0, 2, 1, 0, 2]), 5).tolist() == [0, 3, 2, 1, 5]


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> TestSets:
    """12 test images of three classes, 8 of them triggered."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw", images=24)
    made = poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0]), clean)
    return TestSets(made.test, made.triggered_test)


def test_behind_each_triggered_image_is_the_clean_one_of_the_same_key(tests: TestSets) -> None:
    truth = tests.truth
    assert torch.equal(tests.clean.keys[truth.clean_rows], tests.triggered.keys)
    assert truth.behind.tolist() == [info["original_label"] for info in tests.triggered.infos]
    assert truth.given.tolist() == [0] * 8


def test_some_of_the_images_come_with_what_the_attack_makes_of_them(tests: TestSets) -> None:
    some, again, others = (tests.some(6, seed) for seed in (1, 1, 2))
    assert len(some.clean.keys) == 6
    kept = torch.isin(tests.triggered.keys, some.clean.keys)
    assert torch.equal(some.triggered.keys, tests.triggered.keys[kept])
    assert torch.equal(some.truth.behind, tests.truth.behind[kept])
    assert torch.equal(some.clean.keys, again.clean.keys)
    assert not torch.equal(some.clean.keys, others.clean.keys)
    assert torch.equal(tests.some(100, 1).clean.keys, tests.clean.keys)


def test_triggered_images_of_another_data_set_are_refused(tests: TestSets) -> None:
    triggered = tests.triggered
    manifest = triggered.manifest
    strangers = [
        replace(triggered, keys=triggered.keys + 1000),
        replace(triggered, manifest=manifest.model_copy(update={"side": 8})),
        replace(triggered, manifest=manifest.model_copy(update={"classes": [*manifest.classes[:2], "another"]})),
    ]
    for stranger in strangers:
        with pytest.raises(UserError, match="belongs to another data set"):
            _ = TestSets(tests.clean, stranger).truth


def test_a_test_set_without_images_is_refused(tests: TestSets) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(UserError, match="the clean test set holds no image"):
        _ = replace(tests, clean=replace(tests.clean, keys=none, labels=none)).truth
