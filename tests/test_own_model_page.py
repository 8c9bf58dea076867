"""The Python examples of docs/own-model.md work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from refine.architectures.resnet18.network import build
from refine.architectures.resnet18.params import Params
from refine.models import classifier as classifiers
from support import PROJECT
from tiny import classifier_folder, defense_folder

WRITE, USE = re.findall(
    r"```python\n(.+?)```", (PROJECT / "docs/own-model.md").read_text(encoding="utf-8"), flags=re.DOTALL
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@torch.no_grad()
def test_the_folder_of_a_network_in_memory_can_be_loaded() -> None:
    network = build(Params(), 10, 32).eval()
    exec(WRITE, {"network": network})
    loaded, card = classifiers.load(Path("models/mine"))
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(pixels), network(loaded.normalize(pixels)))
    assert len(card.classes) == 10


@torch.no_grad()
def test_a_defended_model_can_be_used() -> None:
    classifier_folder(Path("models/backdoor"))
    defense_folder(Path("models/refine"), Path("models/backdoor"))
    names = {"pixels": torch.rand(2, 3, 16, 16)}
    exec(USE, names)
    torch.testing.assert_close(names["probabilities"].sum(dim=1), torch.ones(2))
