"""Plain fine-tuning: it learns the labels, and from a step of no length nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetuned import task
from refine.defenses.ft.training import train
from refine.models.card import WEIGHTS
from tiny import history


def test_the_labels_are_learned(tmp_path: Path) -> None:
    recipe = {"epochs": 40, "batch_size": 6, "optimizer": {"lr": 0.001}, "augment": {}}
    train(task(tmp_path, "ft", {"recipe": recipe}, images=24))
    rows = history(tmp_path / "out")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > 0.8


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_steps_of_no_length_leave_the_weights_and_without_batch_statistics_all(
    tmp_path: Path, batch_statistics: bool
) -> None:
    recipe = {"epochs": 3, "batch_size": 4, "optimizer": {"lr": 1e-12}}
    given = task(tmp_path, "ft", {"recipe": recipe, "batch_statistics": batch_statistics})
    train(given)
    saved = load_file(tmp_path / "out" / WEIGHTS)
    for name, tensor in given.classifier.network.state_dict().items():
        same = torch.allclose(saved[name], tensor, rtol=0, atol=1e-6)
        assert same == (not batch_statistics or ("running" not in name and "num_batches" not in name)), name
