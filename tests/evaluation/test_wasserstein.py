"""Wasserstein-1 distances against what is known of them, and the diagnostic on a tiny defense."""

from __future__ import annotations

from itertools import permutations
from math import sqrt

import pytest
import torch
from torch import Generator, Tensor

from refine.defending.protocol.defense import Defense
from refine.defenses.refine.model.label_map import derangement, remap
from refine.evaluation.test_sets import Diagnosed, halves
from refine.evaluation.wasserstein import Both, Looks, Seen, distance, distances, look
from support import synthetic
from systems import Mirrored, Negative
from tiny import CPU, classifier, defense

NOTHING = torch.zeros(0, dtype=torch.int64)
CHOSEN = Diagnosed(NOTHING, NOTHING, NOTHING, NOTHING)
"""Distances look at what was seen, and not at the places of the images."""


@pytest.fixture(scope="module")
def mapping() -> Defense:
    """A defense that maps three labels, as `derangement(3, 666)` says."""
    return defense(classifier())


def _distances(of: Defense, benign: Both, attacked: tuple[Both, Both] | None = None) -> dict[str, dict[str, float]]:
    return distances(Looks(CHOSEN, benign, attacked), of)


def _points(count: int, dimension: int, seed: int) -> Tensor:
    return torch.rand(count, dimension, generator=Generator().manual_seed(seed))


def _both(after: float, seed: int, before: float = 0.0) -> Both:
    """Points in the unit cube, moved so far along each of its five axes."""
    points, answers = _points(8, 5, seed), _points(8, 3, seed + 1).softmax(dim=1)
    moved = remap(answers, derangement(3, 666).argsort())
    return Both(Seen(points + before, answers), Seen(points + after, moved))


def test_a_defense_that_changes_the_classifier_is_compared_with_the_one_that_it_was_given() -> None:
    given, changed = classifier(seed=1), classifier(seed=2)
    images = synthetic(6)[0]
    seen = look(given, changed, Negative(changed), images, 4, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(seen.before.softmax, given(images / 255).softmax(dim=1))
        torch.testing.assert_close(seen.after.softmax, changed(1 - images / 255).softmax(dim=1))
        assert not torch.equal(seen.after.softmax, given(1 - images / 255).softmax(dim=1))


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


def test_the_figures_tell_what_moved_and_what_did_not(mapping: Defense) -> None:
    told = _distances(mapping, _both(2.0, 1), (_both(2.0, 3), _both(5.0, 3, before=1.0)))
    assert told["softmax"]["utility"] == pytest.approx(0, abs=1e-4)
    expected = {"moved_benign": 2, "trigger_before": 1, "trigger_after": 3, "moved_triggered": 4}
    for figure, shift in expected.items():
        assert told["penultimate"][figure] == pytest.approx(shift * sqrt(5), rel=1e-4)
        assert told["penultimate"][f"{figure}_ceiling"] == pytest.approx(shift * sqrt(5), rel=1e-4)
    assert told["softmax"]["trigger_before"] == told["softmax"]["trigger_after"] == 0


@pytest.mark.parametrize("of", [Negative, Mirrored])
def test_without_a_label_map_the_answers_count_as_they_are(of: type[Negative | Mirrored]) -> None:
    """Those of `_both` are moved as one would map them, so they no longer agree."""
    told = _distances(of(classifier()), _both(2.0, 1))["softmax"]
    assert told["utility"] == told["moved_benign"]
    assert told["utility_ceiling"] == told["moved_benign_ceiling"] > 0.1


def test_each_figure_stands_beside_its_ceiling_and_what_chance_makes_of_other_images(mapping: Defense) -> None:
    benign = _both(0.5, 1)
    before, after = benign.before.softmax, benign.after.softmax
    told = _distances(mapping, benign)["softmax"]
    expected = {
        "moved_benign": distance(before[:4], after[:4]),
        "moved_benign_ceiling": float((before[:4] - after[:4]).norm(dim=1).mean()),
        "moved_benign_independent": distance(before[:4], after[4:]),
        "moved_benign_null": distance(before[:4], before[4:]),
        "utility": 0,
        "utility_ceiling": 0,
        "utility_independent": distance(before[:4], before[4:]),
        "utility_null": distance(before[:4], before[4:]),
    }
    assert told == pytest.approx(expected, abs=1e-4)


def test_points_that_take_each_others_places_are_below_the_ceiling(mapping: Defense) -> None:
    points, answers = _points(4, 5, 1), _points(4, 3, 2).softmax(dim=1)
    swapped = torch.cat((points[:2].flip(0), points[2:]))
    told = _distances(mapping, Both(Seen(points, answers), Seen(swapped, answers)))["penultimate"]
    assert told["moved_benign"] == 0
    assert told["moved_benign_ceiling"] == pytest.approx(float((points[0] - points[1]).norm()), abs=1e-4)


@pytest.mark.parametrize("sizes", [(200, 200, 40), (20, 1, 1), (60, 60, 60)])
def test_where_nothing_moves_chance_alone_is_the_same_for_classes_of_any_size(sizes: tuple[int, ...]) -> None:
    """Of points around the class's own place, halves of the same classes are about as far apart as two draws."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    points = 0.1 * _points(len(labels), 5, 1) + 10 * labels.unsqueeze(1)
    rows = halves(labels)[:, : sum(size // 2 for size in sizes)].flatten()
    still = Seen(points[rows], points[rows])
    told = _distances(Mirrored(classifier()), Both(still, still))["penultimate"]
    assert told["moved_benign"] == told["moved_benign_ceiling"] == 0
    assert 0 < told["moved_benign_null"] == told["moved_benign_independent"] < 0.1


def test_without_an_attack_there_is_nothing_to_say_of_its_trigger(mapping: Defense) -> None:
    told = _distances(mapping, _both(0.5, 1))
    endings = ("", "_ceiling", "_independent", "_null")
    assert set(told["penultimate"]) == {f"moved_benign{ending}" for ending in endings}
    assert set(told["softmax"]) == {f"{figure}{ending}" for figure in ("moved_benign", "utility") for ending in endings}
