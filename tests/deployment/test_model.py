"""`refine.load`: what people give a model, and what they get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import refine
import tiny
from refine.defending.loading import load as load_defense
from refine.deployment import folder as folders
from support import synthetic

SIDE = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folder of a classifier of three classes, and of a defense for it."""
    place = tmp_path_factory.mktemp("models")
    tiny.classifier_folder(place / "classifier")
    tiny.defense_folder(place / "defense", place / "classifier")
    return place


@pytest.fixture(scope="module")
def model(place: Path) -> refine.Model:
    return refine.load(place / "classifier", place / "defense", device="cpu")


def _images(count: int = 5) -> Tensor:
    return synthetic(count, SIDE)[0]


def _array(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.ascontiguousarray(images.movedim(-3, -1).numpy())


def _probabilities(predictions: list[refine.Prediction]) -> Tensor:
    return torch.tensor(np.stack([each.probabilities for each in predictions]))


@torch.no_grad()
def test_every_kind_of_pixels_gives_the_same_answers(model: refine.Model, place: Path, tmp_path: Path) -> None:
    images = _images()
    expected = load_defense(place / "defense", place / "classifier").probabilities(images / 255)
    pictures = [Image.fromarray(each) for each in _array(images)]
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    for given in (
        images,
        images / 255,
        (images / 255).double(),
        _array(images),
        list(_array(images)),
        pictures,
        paths,
        [str(path) for path in paths],
        [images[0], _array(images[1:3]), pictures[3], paths[4]],
    ):
        torch.testing.assert_close(_probabilities(model.classify(given)), expected)
    (one,) = model.classify(paths[3])
    assert one.label == int(expected[3].argmax())
    assert one.name == f"class-{one.label}"
    assert one.probability == pytest.approx(float(expected[3].max()), rel=1e-4)
    assert one.top(2)[0] == (one.name, one.probability)
    assert [name for name, _ in one.top(9)] == [f"class-{label}" for label in expected[3].argsort(descending=True)]
    assert len({each.label for each in model.classify(images)}) > 1


def test_many_images_come_in_batches_and_in_order(model: refine.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(150)
    sizes: list[int] = []
    told = refine.Model.predictions

    def counted(self: refine.Model, pixels: Tensor) -> list[refine.Prediction]:
        sizes.append(len(pixels))
        return told(self, pixels)

    monkeypatch.setattr(refine.Model, "predictions", counted)
    whole = _probabilities(model.classify(images))
    mixed = _probabilities(model.classify([*images[:3], images[3:100], *images[100:]]))
    assert max(sizes) <= 64
    torch.testing.assert_close(whole, mixed)
    assert model.classify([]) == []


def test_pictures_of_another_size_are_resized(model: refine.Model) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    small = Image.fromarray(levels).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    answers = _probabilities(model.classify([Image.fromarray(levels), small]))
    torch.testing.assert_close(answers[0], answers[1])


@pytest.mark.parametrize(
    ("given", "mentions"),
    [
        (torch.rand(2, 3, 8, 8), r"\[N, 3, 16, 16\].* not torch.float32 \[2, 3, 8, 8\]"),
        (torch.rand(2, SIDE, SIDE, 3), r"move its channels to the front"),
        (torch.rand(2, 3, SIDE, SIDE) * 255, r"divide levels of 0 to 255 by 255"),
        (torch.rand(2, 3, SIDE, SIDE) * 4 - 2, r"values are from -"),
        (torch.full((1, 3, SIDE, SIDE), torch.nan), r"values are from nan"),
        (torch.zeros(2, 3, SIDE, SIDE, dtype=torch.int64), r"not torch.int64"),
        (torch.rand(SIDE, SIDE), r"not torch.float32 \[16, 16\]"),
        (np.zeros((2, SIDE, SIDE, 3), np.float32), r"has to be uint8 .* not float32"),
        (np.zeros((3, SIDE, SIDE), np.uint8), r"not uint8 \[3, 16, 16\]"),
        (np.zeros((20, 20, 3), np.uint8), r"PIL.Image.fromarray"),
        (Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)), r"more than 8 bits"),
    ],
)
def test_other_pixels_are_refused_by_name(model: refine.Model, given: object, mentions: str) -> None:
    with pytest.raises(ValueError, match=mentions):
        model.classify(given)  # type: ignore[arg-type]


def test_what_is_no_image_is_refused(model: refine.Model, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not int"):
        model.classify([1])  # type: ignore[list-item]
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(refine.UserError, match=r"a.png cannot be read as an image"):
        model.classify(tmp_path / "a.png")


def test_logits_have_gradients_and_predictions_have_none(model: refine.Model) -> None:
    pixels = (_images() / 255).requires_grad_()
    logits = model.logits(pixels)
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    assert bool(pixels.grad.any())
    assert not any(parameter.requires_grad for parameter in model.system.parameters())
    torch.testing.assert_close(_probabilities(model.classify(pixels)), logits.detach().softmax(dim=1))
    with pytest.raises(ValueError, match=r"not torch\.uint8"):
        model.logits(_images())


def test_a_model_without_defense_and_the_undefended_one_are_the_same(model: refine.Model, place: Path) -> None:
    bare = refine.load(place / "classifier")
    assert bare.undefended is None
    assert model.undefended is not None
    images = _images()
    answers = [_probabilities(each.classify(images)) for each in (bare, model.undefended, model)]
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2], atol=1e-3)
    assert set(model.sums) == {"classifier", "defense"}


def test_what_belongs_to_nothing_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(refine.UserError, match=r"nothing/card\.json is missing"):
        refine.load(tmp_path / "nothing")
    (tmp_path / "half/classifier").mkdir(parents=True)
    with pytest.raises(refine.UserError, match=r"half/defended.json is missing"):
        refine.load(tmp_path / "half")
    with pytest.raises(refine.UserError, match=r"half is defended already"):
        refine.load(tmp_path / "half", place / "defense")


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, refine; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules; refine.load"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="'refine' has no attribute 'other'"):
        refine.other  # noqa: B018


def test_one_sum_for_many_files_depends_on_contents_alone() -> None:
    assert folders.sum_of(["b" * 64, "a" * 64]) == folders.sum_of(["a" * 64, "b" * 64])
    assert folders.sum_of(["a" * 64]) != folders.sum_of(["a" * 64, "a" * 64])
