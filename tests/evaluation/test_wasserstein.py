"""Wasserstein-1 distances against what is known of them, and the diagnostic on a tiny defence."""

from __future__ import annotations

from itertools import permutations
from math import sqrt

import pytest
import torch
from torch import Generator, Tensor

from refine.defenses.label_map import derangement, remap
from refine.evaluation.wasserstein import Both, Seen, distance, distances


def _points(count: int, dimension: int, seed: int) -> Tensor:
    return torch.rand(count, dimension, generator=Generator().manual_seed(seed))


def _both(after: float, seed: int, before: float = 0.0) -> Both:
    """Points in the unit cube, moved so far along each of its five axes."""
    points, answers = _points(8, 5, seed), _points(8, 3, seed + 1).softmax(dim=1)
    moved = remap(answers, derangement(3, 666).argsort())
    return Both(Seen(points + before, answers), Seen(points + after, moved))


def test_it_is_the_cheapest_of_all_assignments() -> None:
    one, other = _points(6, 3, 1), _points(6, 3, 2)
    cheapest = min(
        sum(float((one[row] - other[column]).double().norm()) for row, column in enumerate(order)) / 6
        for order in permutations(range(6))
    )
    assert distance(one, other) == pytest.approx(cheapest, rel=1e-6)


def test_a_set_is_nowhere_from_itself_in_any_order() -> None:
    one = _points(20, 4, 1)
    assert distance(one, one.flip(0)) == pytest.approx(0, abs=1e-9)


def test_a_translation_is_as_far_as_it_goes() -> None:
    one, way = _points(20, 4, 1), torch.tensor([3.0, 0.0, 4.0, 0.0])
    assert distance(one, one + way) == pytest.approx(5, rel=1e-5)


def test_probabilities_are_no_farther_than_the_corners_of_the_simplex() -> None:
    corners = torch.eye(3)
    assert distance(corners[:1].expand(5, 3), corners[1:2].expand(5, 3)) == pytest.approx(sqrt(2))


def test_the_figures_tell_what_moved_and_what_did_not() -> None:
    permutation = derangement(3, 666)
    told = distances(_both(2.0, 1), (_both(2.0, 3), _both(5.0, 3, before=1.0)), permutation)
    assert told["softmax"]["utility"] == pytest.approx(0, abs=1e-4)
    assert told["penultimate"]["moved_benign"] <= told["penultimate"]["paired"] == pytest.approx(2 * sqrt(5), rel=1e-4)
    expected = {"trigger_before": 1, "trigger_after": 3, "moved_triggered": 4}
    for figure, shift in expected.items():
        assert told["penultimate"][figure] == pytest.approx(shift * sqrt(5), rel=1e-4)
    assert told["softmax"]["trigger_before"] == told["softmax"]["trigger_after"] == 0
    assert 0 < told["penultimate"]["null"] < sqrt(5)


def test_without_an_attack_there_is_nothing_to_say_of_its_trigger() -> None:
    told = distances(_both(0.5, 1), None, derangement(3, 666))
    assert {name for figures in told.values() for name in figures} == {"moved_benign", "paired", "null", "utility"}
