"""FST: its loss by hand, and that the last layer turns away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from finetuned import batch, task
from refine.defending.head_reset import Head
from refine.defenses.fst.defense import Params
from refine.defenses.fst.training import loss_of, train
from tiny import classifier, history


def test_published_weight() -> None:
    assert Params().alpha == 0.1


def test_the_loss_by_hand() -> None:
    head = Head(classifier().requires_grad_(True), "fst")
    head.draw(0.5, 1, bias=True)
    logits, shown = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), batch()
    terms = loss_of(head, 0.3)(logits, shown.pixels, shown)
    inner = sum(w * g for w, g in zip(head.weight.flatten().tolist(), head.given.flatten().tolist(), strict=True))
    assert terms["loss"].item() == pytest.approx(
        functional.cross_entropy(logits, shown.fields[0]).item() + 0.3 * inner, rel=1e-4
    )
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(head.weight.grad, 0.3 * head.given)


def test_the_last_layer_turns_away_from_the_given_one_and_farther_with_more_weight(tmp_path: Path) -> None:
    last = []
    for alpha in (0.0, 5.0):
        recipe = {"epochs": 8, "batch_size": 6, "optimizer": {"lr": 0.02, "weight_decay": 0.0}}
        train(task(tmp_path, "fst", {"alpha": alpha, "recipe": recipe}))
        cosines = [row["cosine"] for row in history(tmp_path / "out")]
        last.append(cosines[-1])
    assert cosines == sorted(cosines, reverse=True)
    assert last[1] < last[0] - 0.3


def test_the_draw_is_as_wide_as_the_features_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = Head.draw
    monkeypatch.setattr(Head, "draw", lambda head, *of, **named: (drawn.append((of, named)), real(head, *of, **named)))
    train(task(tmp_path, "fst", {"recipe": {"epochs": 1, "batch_size": 6}}))
    assert drawn == [((64**-0.5, 1), {"bias": True})]
