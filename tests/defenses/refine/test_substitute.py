"""The black-box variant: the transform is trained through a substitute and stands before the classifier."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from refine.core.errors import UserError
from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine import defense as refine
from refine.defenses.refine.training import substitute
from refine.defenses.refine.training.params import SubstituteParams, TrainRefineParams
from refine.defenses.refine.training.train import train_refine
from refine.models.architecture import named
from refine.models.classifier import Classifier
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, classifier_card, classifier_folder, refine_params, same_tensors

RECIPE = {"epochs": 4, "batch_size": 16, "optimizer": {"lr": 0.05}, "augment": {}}


def _params(**changes: Any) -> TrainRefineParams:
    return refine_params(substitute={"recipe": {**RECIPE, **changes.pop("recipe", {})}, **changes})


def _trained(folder: Path, params: TrainRefineParams) -> refine.Refine:
    train_refine(params, Resident(synthetic(64)[0], ()), folder.parent / "classifier", CPU, folder)
    return refine.load(folder, folder.parent / "classifier")


def test_the_classifier_gives_labels_alone_and_is_what_is_defended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = classifier_folder(tmp_path / "classifier")
    through: list[Classifier] = []
    real = PseudoLabels.of

    def of(answers: PseudoLabels, pixels: Tensor) -> Tensor:
        through.append(answers.classifier)
        return real(answers, pixels)

    monkeypatch.setattr(PseudoLabels, "of", of)
    made = _trained(tmp_path / "refine", _params())
    assert same_tensors(made.classifier.network.state_dict(), own.network.state_dict())
    asked = {id(each): each for each in through}.values()
    assert len(asked) == 2  # the classifier by the substitute, which the transform asks
    pixels = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    answers = [torch.allclose(each(pixels), own(pixels), atol=1e-3) for each in asked]
    assert answers == [True, False]


def test_it_comes_to_agree_and_leaves_its_history(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    _trained(tmp_path / "refine", _params(recipe={"epochs": 8}))
    with (tmp_path / "refine/substitute_history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(number) for number in range(1, 9)]
    assert float(rows[-1]["agreement"]) > float(rows[0]["agreement"]) > 0
    _trained(tmp_path / "plain", refine_params())
    assert not (tmp_path / "plain/substitute_history.csv").exists()


def test_another_width_gives_another_transform_and_the_same_way_the_same(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    first, again, wide = (
        _trained(tmp_path / name, params).transform.state_dict()
        for name, params in {"first": _params(), "again": _params(), "wide": _params(width=12)}.items()
    )
    assert same_tensors(first, again)
    assert not same_tensors(first, wide)


def test_a_copy_of_weights_wants_the_same_width() -> None:
    transform = {"name": "encoder_decoder", "channels": 8, "start": "from_classifier"}
    with pytest.raises(ValidationError, match=r"set substitute\.width to null, or transform\.start to fresh"):
        refine_params(transform=transform, input_space="pixel", substitute={"width": 16, "recipe": RECIPE})
    fresh = {**transform, "start": "fresh"}
    assert refine_params(transform=fresh, input_space="pixel", substitute={"width": 16, "recipe": RECIPE}).substitute


def test_features_of_a_substitute_want_the_same_width() -> None:
    given: dict[str, Any] = {
        "transform": {"name": "encoder_decoder", "channels": 8},
        "input_space": "pixel",
        "encoder": {"epochs": 1, "learns": "features"},
    }
    with pytest.raises(ValidationError, match=r"set substitute\.width to null, or encoder\.learns to probabilities"):
        refine_params(**given, substitute={"width": 16, "recipe": RECIPE})
    assert refine_params(**given, substitute={"recipe": RECIPE}).substitute


def test_batches_that_cannot_be_are_refused_before_any_training(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    with pytest.raises(UserError, match=r"train_refine\.substitute\.recipe"):
        _trained(tmp_path / "refine", _params(recipe={"batch_size": 65, "drop_last": True}))
    assert not (tmp_path / "refine").exists()


def test_a_width_is_refused_for_networks_without_one() -> None:
    card = classifier_card().model_copy(update={"architecture": named("torchvision", model="shufflenet_v2_x0_5")})
    with pytest.raises(UserError, match=r"train_refine\.substitute\.width: torchvision networks have none"):
        substitute._as_wide(SubstituteParams(width=8), card)
    assert substitute._as_wide(SubstituteParams(width=16), classifier_card()).architecture == named(
        "resnet18", width=16
    )
