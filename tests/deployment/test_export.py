"""Exported files: they answer as torch does, and tell what a program has to know."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from commands import refine
from refine.core.files import sha256_of
from refine.defenses.refine.training.train import train_refine
from refine.deployment.check import Run
from refine.deployment.export import graph
from refine.deployment.model import Model, load
from refine.shards.reading.reader import read_split
from refine.training.training_set import Resident
from support import PROJECT, synthetic

SIDE = 16
ENCODER = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.05}, "learns": "features", "frozen": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, a defense `unet`, and a defense `encoder_decoder` that was trained for a moment."""
    place = tmp_path_factory.mktemp("models")
    tiny.classifier_folder(place / "classifier")
    tiny.defense_folder(place / "unet", place / "classifier")
    transform = {"name": "encoder_decoder", "channels": 8, "start": "from_classifier"}
    params = tiny.refine_params(transform=transform, encoder=ENCODER)
    images = Resident(synthetic(24)[0], ())
    train_refine(params, images, place / "classifier", tiny.CPU, place / "encoder_decoder")
    return place


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def _told(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}


def _photos(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(folder / f"{number:03d}.png")
    return folder


@pytest.mark.parametrize("defense", ["unet", "encoder_decoder", None])
@torch.no_grad()
def test_an_onnx_file_answers_as_torch_does_for_any_number_of_images(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], defense: str | None
) -> None:
    out = tmp_path / "new/model.onnx"
    more = ["--defense", place / defense] if defense else []
    images = synthetic(70)[0]
    photos = _photos(tmp_path / "photos", images)
    ended = refine(capsys, "export", place / "classifier", out, "--check", photos, *more)
    assert ended.status == 0, ended.err
    assert "gives the same class as" in ended.out
    assert "for 70 of 70 images; probabilities differ by at most" in ended.out
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    model = load(place / "classifier", place / defense if defense else None, "cpu")
    session = _session(out)
    for count in (1, 2, 7, 70):
        pixels = images[:count] / 255
        (answers,) = session.run(["probabilities"], {"pixels": pixels.numpy()})
        expected = model.system.probabilities(pixels)
        torch.testing.assert_close(torch.from_numpy(answers), expected, rtol=1e-4, atol=1e-5)
    assert answers.std(axis=0).max() > 1e-3, "all images would be the same to it"
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("pixels", "tensor(float)", ["n", 3, SIDE, SIDE])
    operations = Counter(node.op_type for node in onnx.load(out).graph.node)
    assert not {"TopK", "GatherND", "BatchNormalization"} & set(operations)
    assert operations["Gather"] == (1 if defense else 0)


def test_the_file_tells_what_a_program_has_to_know_and_nothing_of_this_machine(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        refine(capsys, "export", place / "classifier", tmp_path / f"{name}.onnx", "--defense", place / "unet")
    told = _told(_session(tmp_path / "first.onnx"))
    assert told["refine.classes"] == ["class-0", "class-1", "class-2"]
    assert told["refine.format_version"] == 1
    assert told["refine.defense"] == "REFINE"
    assert told["refine.input"] == {
        "name": "pixels",
        "dtype": "float32",
        "shape": ["n", 3, SIDE, SIDE],
        "range": [0, 1],
        "channels": "RGB",
    }
    assert told["refine.output"] == {"name": "probabilities", "dtype": "float32", "shape": ["n", 3]}
    assert told["refine.preparation"] == {
        "resize": SIDE,
        "crop": SIDE,
        "interpolation": "bilinear",
        "keep_aspect": False,
    }
    assert told["refine.sha256"]["classifier"]["weights_sha256"] == sha256_of(place / "classifier/weights.safetensors")
    assert told["refine.sha256"]["defense"]["card_sha256"] == sha256_of(place / "unet/card.json")
    content = (tmp_path / "first.onnx").read_bytes()
    assert str(PROJECT).encode() not in content
    assert b".py" not in content
    assert content == (tmp_path / "second.onnx").read_bytes()


@torch.no_grad()
def test_a_program_of_torch_answers_as_the_model_does(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.pt2"
    ended = refine(capsys, "export", place / "classifier", out, "--defense", place / "unet")
    assert ended.status == 0, ended.err
    assert "27 of 27 images of noise" in ended.out
    more = {"refine.json": ""}
    program = torch.export.load(io.BytesIO(out.read_bytes()), extra_files=more).module()
    model = load(place / "classifier", place / "unet", "cpu")
    for count in (1, 9):
        pixels = synthetic(count)[0] / 255
        torch.testing.assert_close(program(pixels), model.system.probabilities(pixels))
    assert json.loads(json.loads(more["refine.json"])["refine.classes"]) == list(model.classes)
    assert str(PROJECT).encode() not in out.read_bytes()


def test_a_file_that_answers_otherwise_is_not_left(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(place / "classifier", device="cpu")

    def onnx_runtime(path: Path, name: str, threads: int) -> Run:
        assert path.is_file()
        return lambda pixels: model.system.probabilities(pixels).roll(1, dims=1)

    monkeypatch.setattr("refine.deployment.export.onnx_runtime", onnx_runtime)
    (tmp_path / "model.onnx").write_text("the one before")
    ended = refine(capsys, "export", place / "classifier", tmp_path / "model.onnx")
    assert ended.is_one_sentence("model.onnx would answer otherwise than the model", "no file was written")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.onnx", "the one before")]


def test_without_the_packages_it_is_one_sentence(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refine.deployment.export.find_spec", lambda name: None if name == "onnx" else name)
    ended = refine(capsys, "export", place / "classifier", tmp_path / "model.onnx")
    remedy = "pip install -c constraints.txt -e '.[onnx]', or take --format pt2"
    assert ended.is_one_sentence(f"onnx is missing; type {remedy}")
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_real_digits_by_the_finished_default_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = PROJECT / "models"
    if not all((path / "weights.safetensors").is_file() for path in (place / "backdoor", place / "refine")):
        pytest.skip("needs the finished default run: type ./run first")
    images = read_split(PROJECT / "data/raw/test").images[:200]
    photos, out = _photos(tmp_path / "photos", images), tmp_path / "model.onnx"
    ended = refine(capsys, "export", place / "backdoor", out, "--defense", place / "refine", "--check", photos)
    assert "for 200 of 200 images" in ended.out, ended.err
    model: Model = load(place / "backdoor", place / "refine", "cpu")
    (answers,) = _session(out).run(None, {"pixels": (images / 255).numpy()})
    torch.testing.assert_close(
        torch.from_numpy(answers), model.system.probabilities(images / 255), rtol=1e-4, atol=1e-5
    )


def test_a_graph_takes_gradients(place: Path) -> None:
    pixels = (synthetic(3)[0] / 255).requires_grad_()
    graph(load(place / "classifier", place / "unet", "cpu")).module()(pixels)[:, 0].sum().backward()
    assert pixels.grad is not None
    assert bool(pixels.grad.any())
