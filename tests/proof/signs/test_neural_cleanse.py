"""Neural Cleanse: the class that a pixel forces is found, and none is where no pixel does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import backdoored
from refine.defending.inversion import Inverted, anomaly
from refine.proof.signs import neural_cleanse
from refine.proof.signs.neural_cleanse import Params, look

FEW = Params(steps=80, batch_size=16, least_images=20)
TARGET = f"class-{backdoored.TARGET}"


def test_the_class_that_a_pixel_forces_stands_out() -> None:
    finding = look(backdoored.subject(40.0), FEW, seed=1)
    ranked = sorted(finding.scores, key=lambda name: -finding.scores[name])
    assert finding.weak is None
    assert ranked[0] == TARGET
    assert finding.scores[TARGET] > 3
    assert finding.scores[ranked[1]] < 1.5


def test_no_class_stands_out_without_a_backdoor() -> None:
    finding = look(backdoored.subject(0.0), FEW, seed=1)
    assert finding.weak is None
    assert max(finding.scores.values()) < 1.5


def test_the_same_seed_gives_the_same_finding() -> None:
    short, subject = FEW.model_copy(update={"steps": 15}), backdoored.subject(40.0)
    assert look(subject, short, seed=1) == look(subject, short, seed=1)


def test_the_index_is_that_of_logarithms() -> None:
    areas = {0: 0.01, 1: math.e**-2, 2: math.e**-1, 3: math.e**-3, 4: math.e**-2}
    index = anomaly(areas, [*areas])  # median of the logarithms -2, and their MAD 1
    assert index[2] == pytest.approx(-1 / 1.4826)
    assert index[0] == pytest.approx((-2 - math.log(0.01)) / 1.4826)


def test_classes_that_are_all_alike_do_not_stand_out() -> None:
    index = anomaly(dict.fromkeys(range(9), 0.1) | {9: 0.09}, [*range(10)])
    assert index[9] < 0.5


def test_of_many_classes_those_that_are_easily_reached_are_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is among them, and others are drawn to compare with."""
    asked: list[tuple[int, int]] = []

    def invert(_logits: object, _pixels: object, target: int, search: neural_cleanse.Search, _: object) -> Inverted:
        asked.append((target, search.steps))
        own = target == 33
        blank = torch.zeros(1)
        return Inverted(0.01 if own else 0.2 + target / 1000, 0.01, 0.1 if own else 1.0 + target, True, blank, blank)

    monkeypatch.setattr(neural_cleanse, "invert", invert)
    many = replace(backdoored.subject(0.0), classes=[f"class-{label}" for label in range(40)])
    finding = look(many, FEW.model_copy(update={"candidates": 5}), seed=1)
    assert [target for target, steps in asked if steps == FEW.rough_steps] == [*range(40)]
    assert sum(steps == FEW.steps for _, steps in asked) == 10
    assert {*finding.scores} == {"class-33", "class-0", "class-1", "class-2", "class-3"}
    assert max(finding.scores, key=lambda name: finding.scores[name]) == "class-33"


@pytest.mark.parametrize(
    ("classes", "images", "told"),
    [(4, 120, "4 classes are too few"), (300, 120, "more than the 200"), (6, 12, "12 images are fewer than the 20")],
)
def test_it_abstains_where_it_cannot_compare(classes: int, images: int, told: str) -> None:
    subject = replace(backdoored.subject(0.0, images), classes=[str(label) for label in range(classes)])
    finding = look(subject, FEW, seed=1)
    assert finding.score is None
    assert told in str(finding.weak)


def test_it_abstains_where_no_patch_reaches_most_classes() -> None:
    finding = look(backdoored.subject(0.0), FEW.model_copy(update={"steps": 10, "weight": 1e5}), seed=1)
    assert "no trigger was found for" in str(finding.weak)
