"""I-BAU: the implicit gradient where it is known, and what a round changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from finetuned import ARCHITECTURES, state, task
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.retraining import trainable
from refine.defenses.ibau.defense import Params
from refine.defenses.ibau.training import Implicit, hypergradient, train
from refine.models.card import WEIGHTS
from tiny import CPU, history, same_tensors

RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 6, "optimizer": {"lr": 0.001}}


def test_published_settings() -> None:
    params = Params()
    assert (params.inner_lr, params.penalty, params.share, params.inner_step, params.implicit_steps) == (
        10.0, 0.001, 0.01, 0.1, 5,
    )  # fmt: skip
    assert (params.recipe.epochs, params.recipe.batch_size, params.recipe.optimizer.lr) == (5, 256, 1e-4)


def test_the_gradient_of_a_quadratic_problem_is_the_analytic_one() -> None:
    """inner = |d - A w|² / 2, so that d(w) = A w; outer = |d - b|² / 2 + |w|² / 2 with gradient Aᵀ (A w - b) + w."""
    generator = torch.Generator().manual_seed(0)
    matrix, goal = torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator)
    weights = torch.randn(4, generator=generator).requires_grad_()
    wanted = matrix.T @ (matrix @ weights.detach() - goal) + weights.detach()

    def inner(change: Tensor) -> Tensor:
        return (change - matrix @ weights).square().sum() / 2

    def outer(change: Tensor) -> Tensor:
        return (change - goal).square().sum() / 2 + weights.square().sum() / 2

    (found,), loss = hypergradient(inner, outer, (matrix @ weights).detach(), [weights], 0.5, 40)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert float(loss) == pytest.approx(float(outer(matrix @ weights).detach()))
    for count in range(4):  # with the Jacobian I / 2 of this map, v is (2 - 2^(1 - count)) times the slope
        (early,), _ = hypergradient(inner, outer, (matrix @ weights).detach(), [weights], 0.5, count)
        share = 1 - 0.5**count
        implicit = matrix.T @ (matrix @ weights.detach() - goal)
        torch.testing.assert_close(early, weights.detach() + share * implicit, rtol=1e-4, atol=1e-4)
    (direct,), _ = hypergradient(lambda change: change.square().sum(), outer, goal, [weights], 0.5, 5)
    torch.testing.assert_close(direct, weights.detach())


def test_a_round_seeks_one_perturbation_that_harms(tmp_path: Path) -> None:
    given = task(tmp_path, "ibau", {"inner_lr": 50.0, "recipe": {**RECIPE, "augment": {}}})
    of = trainable(given), labeled_images(given), given.settings.recipe, cross_entropy, CPU, False
    made = Implicit(given.settings, 1, *of)
    made.begin_epoch(1)
    assert made.change.shape == (1, 3, 16, 16)
    shown, _ = made.first
    with torch.no_grad():
        harm = made.inner(shown, made.module(shown).argmax(dim=1))
        assert float(harm(made.change)) < float(harm(torch.zeros_like(made.change)))
    again = Implicit(given.settings, 1, *of)
    again.begin_epoch(1)
    assert torch.equal(again.change, made.change)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_statistics_never_move_and_the_classifier_stays(tmp_path: Path, architecture: str) -> None:
    given = task(tmp_path, "ibau", {"share": 0.5, "recipe": RECIPE}, architecture)
    before = state(given.classifier)
    train(given)
    saved = load_file(tmp_path / "out" / WEIGHTS)
    assert same_tensors(before, state(given.classifier))
    assert all(torch.equal(saved[name], before[f"network.{name}"]) for name in saved if "running" in name)
    assert any(not torch.equal(saved[name], before[f"network.{name}"]) for name in saved)
    assert all(row["perturbation"] > 0 for row in history(tmp_path / "out"))
