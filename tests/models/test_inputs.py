"""What a loaded model is given: pixels of its size in [0, 1], or one sentence and no answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from refine.defending.protocol.defense import Defense
from refine.defenses.refine import defense as refine
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from tiny import classifier_folder, defense_folder

WANTED = "give pixels float [N, 3, 16, 16] in [0, 1], RGB, not "


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier for images of 16 pixels, and a defense of it."""
    folder = tmp_path_factory.mktemp("models")
    classifier_folder(folder / "classifier")
    defense_folder(folder / "refine", folder / "classifier", space="normalized_clamp01")
    return folder


@pytest.fixture(params=["classifier", "refine"])
def loaded(request: pytest.FixtureRequest, folders: Path) -> nn.Module:
    """Each kind of model as it is loaded."""
    if request.param == "refine":
        return refine.load(folders / "refine", folders / "classifier")
    return classifiers.load(folders / "classifier")[0]


def _pixels(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (_pixels(2, 3, 32, 32), "torch.float32 [2, 3, 32, 32]"),
        (_pixels(2, 16, 16, 3), "torch.float32 [2, 16, 16, 3]"),
        (_pixels(2, 1, 16, 16), "torch.float32 [2, 1, 16, 16]"),
        (_pixels(3, 16, 16), "torch.float32 [3, 16, 16]"),
        ((_pixels(2, 3, 16, 16) * 255).to(torch.uint8), "torch.uint8 [2, 3, 16, 16]"),
        (torch.full((2, 3, 16, 16), 255.0), "from 255 to 255"),
        (torch.full((2, 3, 16, 16), 1.01), "from 1.01 to 1.01"),
        (torch.full((2, 3, 16, 16), -0.01), "from -0.01 to -0.01"),
        (torch.full((2, 3, 16, 16), torch.nan), "from nan to nan"),
    ],
)
def test_what_it_would_answer_wrongly_is_refused(loaded: nn.Module, pixels: Tensor, message: str) -> None:
    asked = [loaded, loaded.probabilities] if isinstance(loaded, Defense) else [loaded]
    for ask in asked:
        with pytest.raises(ValueError, match=f"^{re.escape(WANTED + message)}$"):
            ask(pixels)


@pytest.mark.parametrize("pixels", [_pixels(5, 3, 16, 16), torch.full((1, 3, 16, 16), 1 + 1e-6), _pixels(0, 3, 16, 16)])
def test_looking_changes_neither_answers_nor_gradients(loaded: nn.Module, pixels: Tensor) -> None:
    found = []
    looking = loaded if isinstance(loaded, Classifier) else loaded.classifier
    for side in (16, None):
        looking.input_side = side
        given = pixels.clone().requires_grad_()
        answers = loaded(given)
        answers.square().sum().backward()
        found.append((answers.detach(), given.grad))
    (answers, gradient), (blind_answers, blind_gradient) = found
    assert torch.equal(answers, blind_answers)
    assert gradient is not None
    assert torch.equal(gradient, blind_gradient)


def test_it_compiles_into_one_graph(loaded: nn.Module) -> None:
    pixels = _pixels(4, 3, 16, 16)
    with torch.no_grad():
        compiled = torch.compile(loaded, backend="eager", fullgraph=True)
        assert torch.equal(compiled(pixels), loaded(pixels))


def test_what_was_not_loaded_takes_any_side(folders: Path) -> None:
    classifier = classifiers.folded(classifiers.load(folders / "classifier")[0])
    assert classifier(_pixels(2, 3, 32, 32)).shape == (2, 3)
