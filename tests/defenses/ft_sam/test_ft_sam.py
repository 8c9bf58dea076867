"""FT-SAM: where the worst weights are, that it comes back from there, and what is left of it without a radius."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetuned import ARCHITECTURES, batch, state, task, trained
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.retraining import Retraining, trainable
from refine.defending.train import Task
from refine.defenses.ft_sam.defense import Params
from refine.defenses.ft_sam.training import SharpnessAware, loss_of, still_statistics, train
from tiny import CPU, history, same_tensors


def _made(given: Task, rho: float, adaptive: bool = True) -> SharpnessAware:
    return SharpnessAware(
        rho, adaptive, trainable(given), labeled_images(given), given.settings.recipe, cross_entropy, CPU
    )


def _given(folder: Path, architecture: str = "resnet18", **recipe: Any) -> Task:
    of = {"epochs": 2, "batch_size": 6, "augment": {}, **recipe}
    return task(folder, "ft_sam", {"recipe": of}, architecture)


def test_published_settings() -> None:
    assert (Params().rho, Params().adaptive, Params().label_smoothing) == (2.0, True, 0.1)


@pytest.mark.parametrize("adaptive", [True, False])
def test_the_worst_weights_by_hand(tmp_path: Path, adaptive: bool) -> None:
    made = _made(_given(tmp_path), 0.5, adaptive)
    made.module.eval()
    before = dict(made.module.named_parameters())
    values = {name: parameter.detach().double().clone() for name, parameter in before.items()}
    made.step_on(batch().pixels, batch()).loss.backward()  # type: ignore[no-untyped-call]
    grads = {name: parameter.grad.double().clone() for name, parameter in before.items() if parameter.grad is not None}
    made.perturb()
    size = {name: value.abs() if adaptive else torch.ones_like(value) for name, value in values.items()}
    length = sum(float(((size[name] * grads[name]) ** 2).sum()) for name in values) ** 0.5
    for name, parameter in before.items():
        wanted = values[name] + 0.5 * size[name] ** 2 * grads[name] / length
        torch.testing.assert_close(parameter.detach().double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_comes_back_to_the_very_same_weights(tmp_path: Path, architecture: str) -> None:
    made = _made(_given(tmp_path, architecture), 2.0)
    made.module.train()
    before = {name: parameter.detach().clone() for name, parameter in made.module.named_parameters()}
    made.generator.manual_seed(1)
    step = made.step(batch())
    away = dict(made.module.named_parameters())
    assert not same_tensors(before, {name: parameter.detach() for name, parameter in away.items()})
    assert step.terms["worst_loss"] > step.terms["loss"]
    made.restore()
    assert same_tensors(before, {name: parameter.detach() for name, parameter in away.items()})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_a_radius_it_is_plain_training(tmp_path: Path, architecture: str) -> None:
    given = _given(tmp_path, architecture)
    sharp = _made(given, 0.0)
    plain = Retraining(trainable(given), labeled_images(given), given.settings.recipe, cross_entropy, CPU)
    assert [row["loss"] for row in trained(sharp)] == [row["loss"] for row in trained(plain)]
    assert same_tensors(state(sharp.module), state(plain.module))
    radius = _made(given, 0.5)
    trained(radius)
    assert not same_tensors(state(radius.module), state(plain.module))


def test_the_second_pass_moves_no_statistics(tmp_path: Path) -> None:
    given = _given(tmp_path)
    sharp, plain = _made(given, 2.0), _made(given, 2.0)
    for made in (sharp, plain):
        made.module.train()
        made.generator.manual_seed(1)
    sharp.step(batch())
    sharp.restore()
    plain.step_on(plain.augmented(batch()), batch())
    assert same_tensors(state(sharp.module), state(plain.module))


def test_still_statistics_are_those_of_the_batch_in_training_and_the_running_ones_elsewhere() -> None:
    layer = nn.BatchNorm2d(4)
    images = 3 + 2 * torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    before = state(layer)
    with still_statistics(layer):
        torch.testing.assert_close(layer(images).mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.eval()(images), images, rtol=1e-4, atol=1e-4)
    assert same_tensors(state(layer), before)
    layer.train()(images)
    assert not same_tensors(state(layer), before)


def test_labels_are_smoothed_over_the_other_classes() -> None:
    shown = batch()
    wanted = torch.full((6, 3), 0.05).scatter_(1, shown.fields[0][:, None], 0.9)
    assert loss_of(0.1)(wanted.log(), shown.pixels, shown)["loss"].item() == pytest.approx(0, abs=1e-6)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    by_hand = (wanted * (wanted.log() - logits.log_softmax(dim=1))).sum() / 6
    torch.testing.assert_close(loss_of(0.1)(logits, shown.pixels, shown)["loss"], by_hand)
    hard = loss_of(0.0)(logits, shown.pixels, shown)["loss"]
    torch.testing.assert_close(hard, cross_entropy(logits, shown.pixels, shown)["loss"])


def test_the_learning_rate_rises_and_falls(tmp_path: Path) -> None:
    schedule = {"name": "oscillating", "period": 2}
    recipe = {"epochs": 6, "batch_size": 12, "schedule": schedule, "optimizer": {"lr": 0.001}}
    train(task(tmp_path, "ft_sam", {"rho": 0.1, "recipe": recipe}))
    rates = [row["learning_rate"] for row in history(tmp_path / "out")]
    assert rates == pytest.approx([0.001, 0.0005, 0, 0.0005, 0.001, 0.0005], abs=1e-9)
