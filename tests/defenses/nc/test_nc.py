"""NC: which classes are suspicious, what is unlearned, and that nothing happens without one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import backdoored
from finetuned import batch, state, task
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.inversion import Inverted
from refine.defending.retraining import trainable
from refine.defenses.nc import training
from refine.defenses.nc.defense import Params
from refine.defenses.nc.training import CLASSES, Stamped, inverted, suspicious, train
from refine.models.card import WEIGHTS
from refine.training.checkpoint import Checkpoints
from refine.training.training_set import Resident
from tiny import CPU, history, same_tensors

RECIPE = {"epochs": 2, "batch_size": 6, "optimizer": {"lr": 0.001}, "augment": {}}


def trigger(area: float, succeeded: bool = True) -> Inverted:
    mask, pattern = torch.zeros(1, 16, 16), torch.full((3, 16, 16), 0.75)
    mask[:, :2, :2] = 1
    return Inverted(area, area, 0.0, succeeded, mask, pattern)


def test_published_settings() -> None:
    assert (Params().most_index, Params().share, Params().search.lr, Params().search.weight) == (2.0, 0.2, 0.1, 1e-3)


def test_a_class_with_a_far_smaller_patch_is_suspicious_if_the_patch_was_found() -> None:
    usual = {target: trigger(0.1 + target / 100) for target in range(9)}
    assert suspicious({**usual, 9: trigger(0.001)}, 2.0)[0] == [9]
    assert suspicious({**usual, 9: trigger(0.001, succeeded=False)}, 2.0)[0] == []
    assert suspicious({**usual, 9: trigger(0.1)}, 2.0)[0] == []
    assert suspicious({**usual, 9: trigger(5.0)}, 2.0)[0] == []


def test_a_planted_pixel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = task(tmp_path, "nc", {"search": {"steps": 80, "batch_size": 16}})
    monkeypatch.setattr(training.classifiers, "folded", lambda _: backdoored.classifier(60.0))
    images = Resident(backdoored.images(), (torch.zeros(120, dtype=torch.int64),))
    card = given.card.model_copy(update={"classes": [f"class-{number}" for number in range(backdoored.CLASSES)]})
    found = inverted(replace(given, card=card), images, given.settings)
    targets, indices = suspicious(found, 2.0)
    assert targets == [backdoored.TARGET]
    assert max(indices, key=lambda target: indices[target]) == backdoored.TARGET


def test_some_images_get_a_patch(tmp_path: Path) -> None:
    given = task(tmp_path, "nc", {"recipe": RECIPE})
    of = trainable(given), labeled_images(given), given.settings.recipe, cross_entropy, CPU
    made = Stamped([trigger(0.1)], 0.5, *of)
    made.generator.manual_seed(0)
    shown = batch()
    pixels = made.augmented(shown)
    corners = (pixels[:, :, :2, :2] == 0.75).all(dim=(1, 2, 3))
    assert 0 < int(corners.sum()) < len(pixels)
    same = (pixels == shown.pixels).all(dim=(1, 2, 3))
    assert torch.equal(same, ~corners)
    assert torch.equal(pixels[:, :, 2:], shown.pixels[:, :, 2:])


@pytest.mark.parametrize("found", [True, False])
def test_the_classifier_changes_only_if_a_class_is_suspicious(
    tmp_path: Path, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    given = task(tmp_path, "nc", {"recipe": RECIPE}, checkpoints=Checkpoints(tmp_path / "checkpoints"))
    before = state(given.classifier)
    areas = {0: 0.2, 1: 0.0001 if found else 0.2, 2: 0.2}
    asked = []

    def inverted(*_: object) -> dict[int, Inverted]:
        asked.append(1)
        return {target: trigger(area) for target, area in areas.items()}

    monkeypatch.setattr(training, "inverted", inverted)
    monkeypatch.setattr(training, "LEAST_CLASSES", 3)
    whole = train(given)
    assert train(given) == train(given) == whole  # with checkpoints, triggers are inverted once
    assert len(asked) == 1
    saved = load_file(tmp_path / "out" / WEIGHTS)
    assert same_tensors(saved, state(given.classifier.network)) != found
    assert same_tensors(before, state(given.classifier))
    assert len(history(tmp_path / "out")) == (2 if found else 0)
    with (tmp_path / "out" / CLASSES).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["unlearned"] for row in rows] == ["false", str(found).lower(), "false"]


def test_with_few_classes_nothing_can_be_told(tmp_path: Path) -> None:
    given = task(tmp_path, "nc", {})
    train(given)
    assert same_tensors(load_file(tmp_path / "out" / WEIGHTS), state(given.classifier.network))
