"""`refine import` makes a model that the other commands take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from commands import refine
from refine.models import classifier as classifiers

ARCHITECTURE = ("--architecture", "torchvision:shufflenet_v2_x0_5")
SIDE = 64


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    """Weights of a network that always says the third of its classes."""
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
    torch.save(network.state_dict(), tmp_path / "vendor.pth")
    for name in ("cat", "dog", "eel"):
        (tmp_path / "labeled" / name).mkdir(parents=True)
        Image.new("RGB", (90, 70)).save(tmp_path / "labeled" / name / "1.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\neel\n", encoding="utf-8")
    return tmp_path


def test_it_tells_what_it_assumes_and_how_well_it_does(vendor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--classes", vendor / "classes.txt", "--input-side", SIDE, "--check", vendor / "labeled")
    ended = refine(capsys, "import", vendor / "vendor.pth", *ARCHITECTURE, "--out", vendor / "model", *options)
    assert ended.status == 0
    for said in (
        "torchvision (model shufflenet_v2_x0_5, small_stem False)",
        "3: cat, dog, eel",
        "64x64 pixels, RGB",
        "mean 0.485,0.456,0.406, std 0.229,0.224,0.225",
        "33.3% of 3 images",
        "hint: ",
    ):
        assert said in ended.out
    assert classifiers.load(vendor / "model")[1].classes == ["cat", "dog", "eel"]
    predicted = refine(capsys, "predict", vendor / "model", vendor / "labeled/cat/1.png", "--csv")
    assert ",eel,0.98" in predicted.out


def test_a_whole_model_leaves_nothing_behind(vendor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Linear(2, 2), vendor / "whole.pth")
    ended = refine(capsys, "import", vendor / "whole.pth", *ARCHITECTURE, "--out", vendor / "model")
    assert ended.is_one_sentence("whole.pth holds more than weights", "torch.save(model.state_dict()")
    assert not (vendor / "model").exists()


def test_a_folder_that_is_there_stays(vendor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "import", vendor / "vendor.pth", *ARCHITECTURE, "--out", vendor / "labeled")
    assert ended.is_one_sentence("labeled already exists")
    assert (vendor / "labeled/cat/1.png").exists()


@pytest.mark.parametrize(
    ("content", "said"), [("cat\ncat\n", "names cat twice"), ("cat\ndog\n", "knows 3 classes, but 2 names are given")]
)
def test_classes_that_do_not_fit_are_refused(
    content: str, said: str, vendor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (vendor / "classes.txt").write_text(content, encoding="utf-8")
    options = ("--classes", vendor / "classes.txt")
    ended = refine(capsys, "import", vendor / "vendor.pth", *ARCHITECTURE, "--out", vendor / "model", *options)
    assert ended.is_one_sentence(said)
