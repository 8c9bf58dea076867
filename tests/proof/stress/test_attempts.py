"""Attempts at planting: weaker or stronger by what the last one did, and never judged by images for measuring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny
from refine.core.errors import UserError
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.proof.stress import attempts
from refine.proof.stress.attempts import planted
from refine.proof.stress.measuring import Bench, rate
from refine.proof.stress.params import PlantParams
from refine.proof.stress.planting import planned, poisoned
from refine.proof.stress.result import Measured
from stressed import CLASSES, PATCH, SIDE, images, params
from support import synthetic


def _found(asr: bool, agreement: bool) -> Measured:
    shares = [rate(synthetic(8)[1] >= (0 if good else 9)) for good in (asr, agreement)]
    return Measured(
        attack_success_rate=shares[0], target_without_trigger=shares[0], agreement=shares[1], robust_agreement=shares[0]
    )


Tried = Callable[..., list[float]]


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Gives the learning rates of attempts that would be found so; None stands for one that diverges."""

    def of(*found: Measured | None) -> list[float]:
        left = list(found)

        def plant(*given: object) -> None:
            if left[0] is None:
                del left[0]
                raise UserError("the loss became nan")
            Path(str(given[-1])).mkdir(exist_ok=True)

        monkeypatch.setattr(attempts, "plant", plant)
        monkeypatch.setattr(attempts, "_shortened", lambda *_: left.pop(0))
        split = images(tmp_path / "images")
        plan = planned("patch", PlantParams.model_validate(PATCH), 1, 1, (CLASSES, SIDE))
        training_set, _ = poisoned(plan, split.images, split.labels)
        trial = Bench(split, split.labels, False, 64, tiny.CPU)
        of_model = tiny.classifier(), tiny.classifier_card()
        rates = planted(plan, params(), of_model, training_set, trial, tmp_path / "copy")
        assert not left
        return [round(each / rates[0], 4) for each in rates]

    return of


def test_the_first_one_that_took_is_kept(tried: Tried) -> None:
    assert tried(_found(asr=True, agreement=True)) == [1]


def test_a_weak_one_is_followed_by_a_stronger_one(tried: Tried) -> None:
    assert tried(_found(asr=False, agreement=False), _found(asr=True, agreement=True)) == [1, 3]


def test_one_that_changes_answers_is_followed_by_a_gentler_one(tried: Tried) -> None:
    assert tried(*[_found(asr=True, agreement=False)] * 3) == [1, 0.3333, 0.1925]


def test_no_rate_is_tried_twice(tried: Tried) -> None:
    too_weak, too_strong = _found(asr=False, agreement=True), _found(asr=True, agreement=False)
    assert tried(too_weak, too_strong, too_weak) == [1, 3, 1.7321]


def test_so_is_one_that_diverges(tried: Tried) -> None:
    assert tried(None, _found(asr=True, agreement=True)) == [1, 0.3333]


def test_what_never_works_tells_why(tried: Tried) -> None:
    with pytest.raises(UserError, match="the loss became nan"):
        tried(None, None, None)


def test_a_copy_goes_back_to_where_it_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, card = tiny.classifier(), tiny.classifier_card()
    last = tiny.classifier(seed=1)
    (tmp_path / "copy").mkdir()
    classifiers.save(tmp_path / "copy", last, card)
    good, broken = _found(asr=True, agreement=True), _found(asr=True, agreement=False)
    left = [*[broken] * 3, good, *[_found(asr=False, agreement=True)] * 2, good]
    monkeypatch.setattr(attempts, "measured", lambda *_: left.pop(0))
    split = images(tmp_path / "images")
    plan = planned("patch", PlantParams.model_validate(PATCH), 1, 1, (CLASSES, SIDE))
    poisoned(plan, split.images, split.labels)
    trial = Bench(split, split.labels, False, 64, tiny.CPU)
    attempts._shortened(plan, params(), (model, card), trial, tmp_path / "copy")
    made, first, end = (of.network.get_parameter("head.weight") for of in (_loaded(tmp_path / "copy"), model, last))
    torch.testing.assert_close(made, 0.3 * first + 0.7 * end)


def _loaded(folder: Path) -> Classifier:
    return classifiers.load(folder)[0]
