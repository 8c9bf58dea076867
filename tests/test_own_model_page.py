"""The Python examples for people who have a model work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from commands import refine
from refine.architectures.resnet18.network import build
from refine.architectures.resnet18.params import Params
from refine.models import classifier as classifiers
from support import PROJECT
from tiny import classifier_folder, defense_folder, pack


def _example(page: str, word: str) -> str:
    """The one Python example of a page that contains this."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    (found,) = (each for each in re.findall(r"```python\n(.+?)```", text, flags=re.DOTALL) if word in each)
    return str(found)


PAGE = "docs/own-model.md"
WRITE = _example(PAGE, "classifiers.save")
USE = _example(PAGE, "refine.load")
GRADIENTS = _example(PAGE, "logsumexp")
RUN = _example(PAGE, "InferenceSession")


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


@pytest.fixture
def defended() -> None:
    """A defended folder that was packed by hand, and two photos, in the working folder."""
    classifier_folder(Path("defended/classifier"))
    defense_folder(Path("defended/defense"), Path("defended/classifier"))
    pack(Path("defended"))
    for name in ("photo.png", "other.png"):
        Image.new("RGB", (20, 30), "gray").save(name)


@pytest.mark.usefixtures("defended")
def test_a_defended_model_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"pixels": torch.rand(2, 3, 16, 16)}
    exec(USE, names)
    assert capsys.readouterr().out.count("class-") == 2 * 4
    exec(GRADIENTS, names)
    assert names["pixels"].grad is not None
    exec(_example("README.md", "refine.load"), {})
    assert capsys.readouterr().out.count("Prediction('class-") == 2


@pytest.mark.usefixtures("defended")
def test_an_exported_model_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert refine(capsys, "export", "defended", "defended.onnx").status == 0
    exec(RUN, {"pixels": torch.rand(2, 3, 16, 16)})
    assert capsys.readouterr().out.startswith("class-")
