"""BTI-DBF(P): what it writes, that it can go on, and when it holds a class for the target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned import state, task
from refine.core.files import sha256_of
from refine.defending.decoupling.inversion import TARGET
from refine.defenses.bti_dbf.defense import Params
from refine.defenses.bti_dbf.training import train
from refine.models.card import WEIGHTS
from refine.training.checkpoint import Checkpoints
from tiny import SMALL_DEFENSES, history, same_tensors

BRIEF: dict[str, Any] = SMALL_DEFENSES["bti_dbf"]


def test_published_settings() -> None:
    recipe = Params().recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (30, 128, 1e-3)


@pytest.mark.parametrize(("least", "used"), [(0.0, True), (1.0, False)])
def test_a_target_counts_if_it_leads_and_the_classifier_stays(tmp_path: Path, least: float, used: bool) -> None:
    given = task(tmp_path, "bti_dbf", {**BRIEF, "least_margin": least})
    before = state(given.classifier)
    assert train(given) == sha256_of(tmp_path / "out" / WEIGHTS)
    assert same_tensors(before, state(given.classifier))
    told = json.loads((tmp_path / "out" / TARGET).read_text(encoding="utf-8"))
    assert told["used"] is used
    assert 0 <= told["margin"] <= told["share"] <= 1
    rows = history(tmp_path / "out")
    assert [(row["round"], row["epoch"]) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(task(tmp_path, "bti_dbf", BRIEF))
    (tmp_path / "checkpoints").mkdir()
    stopped = task(tmp_path, "bti_dbf", BRIEF, checkpoints=Checkpoints(tmp_path / "checkpoints"))
    epochs = []

    def tell(_: object, epoch: int) -> None:
        epochs.append(epoch)
        if len(epochs) in (3, 6, 9):  # within the pretraining, a mask and a purifier
            raise KeyboardInterrupt

    monkeypatch.setattr("refine.training.loop.Run._tell", tell)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    assert train(stopped) == whole
