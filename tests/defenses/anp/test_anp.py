"""ANP: what masks and noise do to a channel, which masks fall, and how the threshold is chosen."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from finetuned import ARCHITECTURES, of_architecture, state, task
from refine.defending.channels import Pair, pairs
from refine.defending.finetuning import labeled_images
from refine.defending.retraining import trainable
from refine.defenses.anp.defense import Params
from refine.defenses.anp.training import MASKS, THRESHOLDS, Masking, Masks, chosen, train, without
from refine.models.card import WEIGHTS
from refine.training.loop import Run
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, history, same_tensors

RECIPE: dict[str, Any] = {"epochs": 2, "min_steps": 0, "batch_size": 4}


def test_published_settings() -> None:
    params = Params()
    assert (params.noise, params.clean_weight, params.recipe.optimizer.lr) == (0.4, 0.2, 0.2)
    assert params.recipe.lasting(9).epochs * 9 >= 2000
    assert THRESHOLDS[0] == 0
    assert THRESHOLDS[-1] == pytest.approx(0.9)


@pytest.mark.parametrize("affine", [True, False])
def test_masks_and_noise_by_hand(affine: bool) -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4, affine=affine).eval()
    scale, shift = torch.randn(2, 4)
    if affine:
        with torch.no_grad():
            layer.weight.copy_(scale)
            layer.bias.copy_(shift)
    images = torch.randn(3, 4, 5, 5)
    plain = (images / (1 + layer.eps) ** 0.5).movedim(1, -1)
    masks = Masks([Pair("", nn.Conv2d(4, 4, 1), layer)])
    with torch.no_grad():
        masks.masks[0].copy_(torch.tensor([1.0, 0.5, 0.0, 0.7]))
    (noise,) = masks.draw(0.4, torch.Generator().manual_seed(0))
    assert noise.shape == (2, 4)
    assert 0.2 < float(noise.detach().abs().max()) <= 0.4
    own = (masks.masks[0] + noise[0]) * plain
    wanted = own * scale + (1 + noise[1]) * shift if affine else own
    torch.testing.assert_close(layer(images).movedim(1, -1), wanted)
    masks.noise = None
    own = masks.masks[0] * plain
    torch.testing.assert_close(layer(images).movedim(1, -1), own * scale + shift if affine else own)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_masks_lie_between_0_and_1_and_the_classifier_stays(tmp_path: Path, architecture: str) -> None:
    given = task(tmp_path, "anp", {"validation": 0.3, "recipe": RECIPE}, architecture)
    before = state(given.classifier)
    train(given)
    assert same_tensors(before, state(given.classifier))
    with (tmp_path / "out" / MASKS).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(pair.normalization.num_features for pair in pairs(given.classifier.network, "anp"))
    assert all(0 <= float(row["mask"]) <= 1 for row in rows)
    assert any(float(row["mask"]) < 1 for row in rows)
    saved = load_file(tmp_path / "out" / WEIGHTS)
    kept = [name for name in saved if "running_var" in name]
    assert all(torch.equal(saved[name], before[f"network.{name}"]) for name in kept)
    assert [row["epoch"] for row in history(tmp_path / "out")] == [1, 2]
    assert all(row["noisy"] > 0 for row in history(tmp_path / "out"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_channels_go_with_the_threshold(architecture: str) -> None:
    classifier = of_architecture(architecture)
    masks = [torch.linspace(0, 1, pair.normalization.num_features) for pair in pairs(classifier.network, "anp")]
    assert same_tensors(state(without(classifier, masks, -1.0)), state(classifier))
    removed = []
    for threshold in (0.0, 0.3, 0.9):
        made = pairs(without(classifier, masks, threshold).network, "anp")
        scales = [pair.normalization.weight if pair.normalization.affine else pair.convolution.weight for pair in made]
        removed.append(sum(int((scale.reshape(len(scale), -1) == 0).all(dim=1).sum()) for scale in scales))
    assert 0 < removed[0] < removed[1] < removed[2]


def test_the_noise_is_that_which_harms(tmp_path: Path) -> None:
    given = task(tmp_path, "anp", {"recipe": {**RECIPE, "epochs": 4, "augment": {}}})
    masked = trainable(given)
    of = pairs(masked.network, "anp")
    made = Masking(given.settings, of, masked, labeled_images(given), given.settings.recipe, None, CPU)
    rows = Run(made, given.settings.recipe, "a test", 1, CPU, None).train()
    assert all(row["noisy"] > row["clean"] + 0.05 for row in rows)


def test_the_largest_threshold_that_costs_little_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = synthetic(12)
    classifier, held = of_architecture("resnet18"), Resident(images, (labels,))
    masks = [torch.tensor([0.0, 0.07, 0.5])]
    found = {-1.0: 0.9, 0.0: 0.9, 0.05: 0.84, 0.1: 0.86}
    monkeypatch.setattr("refine.defenses.anp.training.without", lambda _, __, threshold: threshold)
    monkeypatch.setattr(
        "refine.defending.validation.accuracy",
        lambda of, *_: found.get(round(of, 2) if isinstance(of, float) else -1.0, 0.5),
    )
    threshold, tried = chosen(classifier, masks, held, 0.05, CPU)
    assert threshold == pytest.approx(0.1)
    assert tried[:3] == [(0.0, 1, 0.9), (0.05, 1, 0.84), (0.1, 2, 0.86)]
    found.update({0.0: 0.1, 0.1: 0.1})
    assert chosen(classifier, masks, held, 0.05, CPU)[0] is None
