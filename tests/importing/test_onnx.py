"""ONNX files as weights: of which networks they are read, that answers stay, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.importing.importing import Asked, imported
from refine.importing.onnx_weights import restore_statistics
from refine.models import classifier as classifiers
from refine.models.architecture import from_text
from refine.models.classifier import Normalization

SIDE = 32
PLAIN = Normalization(mean=[0.0] * 3, std=[1.0] * 3)


def _network(text: str) -> nn.Module:
    """A random network whose batch statistics have moved."""
    torch.manual_seed(0)
    made = classifiers.build(from_text(text), 5, PLAIN, SIDE).network
    with torch.no_grad():
        made.train()(torch.rand(8, 3, SIDE, SIDE))
    return made.eval()


def _exported(network: nn.Module, path: Path, dynamo: bool = False, **settings: Any) -> Path:
    with warnings.catch_warnings(action="ignore"):
        if dynamo:
            torch.onnx.export(network, (torch.zeros(2, 3, SIDE, SIDE),), path, dynamo=True, verbose=False, **settings)
        else:
            torch.onnx.export(network, (torch.zeros(1, 3, SIDE, SIDE),), path, dynamo=False, **settings)
    return path


def _asked(text: str) -> Asked:
    return Asked(from_text(text), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), side=SIDE)


def _images() -> Tensor:
    return torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "dynamo"),
    [
        ("resnet18:8", True),
        ("resnet18:8", False),
        ("torchvision:shufflenet_v2_x0_5", False),
        ("torchvision:densenet121", False),
    ],
)
def test_the_network_answers_as_the_file_and_can_be_trained(text: str, dynamo: bool, tmp_path: Path) -> None:
    given = _network(text)
    settings = {"external_data": False} if dynamo else {}
    found = imported(_exported(given, tmp_path / "vendor.onnx", dynamo, **settings), _asked(text))
    images = _images().requires_grad_()
    answers = found.classifier(images)
    torch.testing.assert_close(answers, given(images), rtol=1e-3, atol=1e-5)
    (slope,) = torch.autograd.grad(answers[:, 0].sum(), images)
    assert slope.abs().sum() > 0
    assert found.card.architecture.name == from_text(text).name
    assert len(found.card.classes) == 5


def test_probabilities_are_told_from_logits(tmp_path: Path) -> None:
    given = _network("resnet18:8")
    file = _exported(nn.Sequential(given, nn.Softmax(dim=1)).eval(), tmp_path / "vendor.onnx")
    found = imported(file, _asked("resnet18:8"))
    torch.testing.assert_close(found.classifier(_images()), given(_images()), rtol=1e-3, atol=1e-5)


def test_normalization_has_statistics_again(tmp_path: Path) -> None:
    """Folded away in the file: in training mode, the network would else answer otherwise."""
    found = imported(_exported(_network("resnet18:8"), tmp_path / "vendor.onnx"), _asked("resnet18:8"))
    network = found.classifier.network
    images = _images()
    before = network(images)
    restore_statistics(network, [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)], images)
    torch.testing.assert_close(network(images), before, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(network.train()(images), before, rtol=1e-2, atol=1e-3)


def test_an_unfolded_normalization_keeps_its_statistics(tmp_path: Path) -> None:
    given = _network("resnet18:8")
    settings = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    found = imported(_exported(given, tmp_path / "vendor.onnx", **settings), _asked("resnet18:8"))
    torch.testing.assert_close(found.classifier(_images()), given(_images()), rtol=1e-3, atol=1e-5)


def _vision_transformer(path: Path) -> Path:
    return _exported(
        classifiers.build(from_text("torchvision:vit_small", small_stem=True), 5, PLAIN, SIDE).network, path
    )


def _squaring(path: Path) -> Path:
    """A network that squares its images first, which the layers do not tell."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = _network("resnet18:8")

        def forward(self, images: Tensor) -> Tensor:
            answers: Tensor = self.network(images * images)
            return answers

    return _exported(Odd(), path)


def _elsewhere(path: Path) -> Path:
    model = onnx.load(_exported(_network("resnet18:8"), path))
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def _damaged(path: Path) -> Path:
    path.write_bytes(b"\x08\x07 and more")
    return path


def _headless(path: Path) -> Path:
    return _exported(nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_vision_transformer, "has weights in a layer of the kind"),
        (_squaring, "has the layers of this architecture but answers otherwise"),
        (_elsewhere, "keeps its weights in another file"),
        (_damaged, "cannot be read as an ONNX file"),
        (_headless, "does not end in a linear layer"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(made: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as refused:
        imported(made(tmp_path / "vendor.onnx"), _asked("resnet18:8"))
    assert "ask its maker for the weights" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet18:16", "has layers of other sizes than resnet18:16"),
        ("torchvision:resnet50", r"has 21 layers with weights, torchvision:resnet50 has 54"),
        ("airbench:8", "airbench:8 normalizes without scale and shift"),
    ],
)
def test_another_architecture_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        imported(_exported(_network("resnet18:8"), tmp_path / "vendor.onnx"), _asked(text))
