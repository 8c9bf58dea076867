"""D3: its loss by hand, where its cross-entropy has no gradient, and where its last layer goes without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from finetuned import batch, task
from refine.defending.head_reset import Head
from refine.defenses.d3.defense import Params
from refine.defenses.d3.training import loss_of, train
from tiny import classifier, history


def _head() -> Head:
    head = Head(classifier().requires_grad_(True), "d3")
    head.draw(0.5, 1, bias=False)
    head.project()
    return head


def test_published_settings() -> None:
    assert (Params().weight, Params().bound) == (0.5, 0.1)


@pytest.mark.parametrize(("weight", "divisor"), [(0.5, 1.0), (1.0, 1.0), (10.0, 11.0)])
def test_the_loss_by_hand(weight: float, divisor: float) -> None:
    head, shown = _head(), batch()
    logits = 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    each = functional.cross_entropy(logits, shown.fields[0], reduction="none").tolist()
    assert min(each) < 0.6 < max(each)
    hinge = sum(max(0.0, one - 0.6) for one in each) / 6
    distance = (head.weight - head.given).detach().square().sum().sqrt().item()
    terms = loss_of(head, weight, 0.6)(logits, shown.pixels, shown)
    assert terms["loss"].item() == pytest.approx((weight * hinge - distance) / divisor, rel=1e-4)
    assert terms["cross_entropy"].item() == pytest.approx(sum(each) / 6, rel=1e-5)


def test_images_below_the_bound_have_no_gradient() -> None:
    head, shown = _head(), batch()
    right = 10 * functional.one_hot(shown.fields[0], 3).float()
    right[0] = 0  # this image alone is above the bound
    logits = right.requires_grad_(True)
    loss_of(head, 0.5, 0.1)(logits, shown.pixels, shown)["loss"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0].abs().min() > 0
    assert (logits.grad[1:] == 0).all()


def test_without_cross_entropy_the_last_layer_becomes_the_opposite(tmp_path: Path) -> None:
    recipe = {"epochs": 80, "batch_size": 12, "optimizer": {"lr": 20.0, "weight_decay": 0.0}}
    train(task(tmp_path, "d3", {"weight": 0.0, "recipe": recipe}))
    rows = history(tmp_path / "out")
    assert rows[-1]["cosine"] < -0.99
    length = Head(classifier(), "d3").given.norm().item()
    assert rows[-1]["distance"] == pytest.approx(2 * length, rel=1e-2)
    assert rows[0]["cosine"] > -0.5
