"""BTI-DBF(U): what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetuned import state, task
from refine.core.files import sha256_of
from refine.defending.decoupling.inversion import TARGET
from refine.defenses.bti_dbf_u.defense import Params
from refine.defenses.bti_dbf_u.training import train
from refine.models.card import WEIGHTS
from tiny import SMALL_DEFENSES, history, same_tensors


def test_published_settings() -> None:
    recipe = Params().recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (30, 128, 1e-4)


@pytest.mark.parametrize("statistics", [True, False])
def test_the_classifier_is_changed_in_a_copy(tmp_path: Path, statistics: bool) -> None:
    given = task(tmp_path, "bti_dbf_u", {**SMALL_DEFENSES["bti_dbf_u"], "batch_statistics": statistics})
    before = state(given.classifier)
    train(given)
    assert same_tensors(before, state(given.classifier))
    saved = load_file(tmp_path / "out" / WEIGHTS)
    running = [name for name in saved if "running" in name]
    assert all(torch.equal(saved[name], before[f"network.{name}"]) != statistics for name in running)
    assert not torch.equal(saved["head.weight"], before["network.head.weight"])
    assert [row["round"] for row in history(tmp_path / "out")] == [0, 0, 1, 1]


def test_what_the_architecture_does_not_learn_stays(tmp_path: Path) -> None:
    given = task(tmp_path, "bti_dbf_u", SMALL_DEFENSES["bti_dbf_u"], "airbench")
    train(given)
    saved = load_file(tmp_path / "out" / WEIGHTS)
    assert torch.equal(saved["whiten.weight"], given.classifier.network.get_parameter("whiten.weight"))
    assert json.loads((tmp_path / "out" / TARGET).read_text(encoding="utf-8"))["label"] in range(3)


def test_a_batch_of_one_image_is_no_obstacle(tmp_path: Path) -> None:
    """Whether the network takes it is tried on a copy, hooks and all."""
    given = task(tmp_path, "bti_dbf_u", SMALL_DEFENSES["bti_dbf_u"], images=17)
    assert train(given) == sha256_of(tmp_path / "out" / WEIGHTS)
