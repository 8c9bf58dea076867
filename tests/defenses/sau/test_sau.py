"""SAU: how far a perturbation goes and what it is for, what is unlearned, and what is left without it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from finetuned import ARCHITECTURES, state, task
from refine.defenses.ft.training import train as fine_tune
from refine.defenses.sau.defense import Params
from refine.defenses.sau.training import adversarial, divergence, shared_mistakes, train
from refine.models.card import WEIGHTS
from tiny import same_tensors

RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 6, "optimizer": {"lr": 0.001}, "augment": {}}


def test_published_settings() -> None:
    params = Params()
    assert (params.bound, params.steps, params.step_size) == (0.2, 5, 0.2)
    assert (params.adversarial_weight, params.shared_weight, params.unlearn_weight) == (0.01, 1.0, 1.0)
    assert (params.recipe.optimizer.name, params.recipe.optimizer.lr, params.recipe.epochs) == ("adamw", 1e-4, 100)
    assert (params.recipe.augment.shift, params.recipe.augment.flip) == (0, 0.0)


def test_divergence_by_hand() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence(logits, logits), torch.zeros(5), atol=1e-6, rtol=0)
    sure, other = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])
    assert float(divergence(sure, other)) == pytest.approx(math.log(2), rel=1e-4)
    torch.testing.assert_close(divergence(logits, logits.flip(1)), divergence(logits.flip(1), logits))


def _by_brightness(at: float) -> Any:
    """Class 1 of two if an image is brighter than that."""

    def logits(pixels: Tensor) -> Tensor:
        bright = (pixels.mean(dim=(1, 2, 3)) - at) * 8
        return torch.stack([-bright, bright], dim=1)

    return logits


def test_a_perturbation_fools_both_models_in_the_same_way_and_stays_in_its_bound() -> None:
    pixels = torch.full((3, 3, 4, 4), 0.5)
    labels = torch.zeros(3, dtype=torch.int64)
    models = _by_brightness(0.6), _by_brightness(0.65)
    change = adversarial(models, pixels, labels, Params())
    assert float(change.abs().max()) <= 0.2 + 1e-6
    assert all((model(pixels + change).argmax(dim=1) == 1).all() for model in models)


def test_each_term_leads_where_it_should() -> None:
    """Perturbations begin at +bound: away from the label, darker images fool; like answers are even darker ones."""
    pixels = torch.full((3, 3, 4, 4), 0.5)
    ones, zeros = torch.ones(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    fooling = adversarial(
        (_by_brightness(0.4), _by_brightness(0.35)), pixels, ones, Params(step_size=0.1, shared_weight=0.0)
    )
    assert float(fooling.mean()) < -0.1
    models = _by_brightness(0.9), _by_brightness(0.72)  # at +bound they differ more than without any change
    alike = adversarial(models, pixels, zeros, Params(step_size=0.1, steps=1, adversarial_weight=0.0))
    before, after = (divergence(*(model(pixels + change) for model in models)) for change in (0.2, alike))
    assert (after < before).all()


def test_only_new_mistakes_of_the_given_classifier_are_unlearned() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    labels = torch.tensor([0, 0, 0])
    right = shared_mistakes(logits, torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]), labels)
    before = shared_mistakes(logits, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]), labels)
    assert (float(right), float(before)) == (0, 0)
    new = shared_mistakes(logits, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 0]), labels)
    chance = math.exp(2) / (math.exp(2) + 2)
    assert float(new) == pytest.approx(-math.log(1 - chance) / 3, rel=1e-5)
    sure = torch.tensor([[0.0, 90.0]])
    assert float(shared_mistakes(sure, torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))) < 20


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_its_term_it_is_plain_fine_tuning_and_statistics_never_move(tmp_path: Path, architecture: str) -> None:
    folders = [tmp_path / name for name in ("sau", "ft", "with")]
    for folder in folders:
        folder.mkdir()
    plain = train(task(folders[0], "sau", {"unlearn_weight": 0.0, "recipe": RECIPE}, architecture))
    settings = {"batch_statistics": False, "recipe": RECIPE}
    assert len(plain) == 64
    other = task(folders[2], "sau", {"recipe": RECIPE}, architecture)
    before = state(other.classifier)
    train(other)
    fine_tune(task(folders[1], "ft", settings, architecture))
    saved = [_saved(folder) for folder in folders]
    for name, tensor in saved[1].items():
        torch.testing.assert_close(saved[0][name], tensor, rtol=1e-3, atol=1e-5)
    assert not same_tensors(saved[2], saved[0])
    assert all(torch.equal(saved[2][name], before[f"network.{name}"]) for name in saved[2] if "running" in name)


def _saved(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "out" / WEIGHTS)
    return found
