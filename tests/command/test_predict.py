"""`refine predict`: what a classifier says of image files, with a defense and without."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from commands import refine
from refine.defending.loading import load
from refine.models import classifier as classifiers
from support import synthetic

SIDE = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a classifier of three classes, and of a defense for it."""
    folder = tmp_path_factory.mktemp("models")
    tiny.classifier_folder(folder / "classifier")
    tiny.defense_folder(folder / "defense", folder / "classifier")
    return folder / "classifier", folder / "defense"


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Tensor]:
    """A folder of seventy photos of the classifier's own size, some of them deeper in it, and their pixels."""
    images, _ = synthetic(70, SIDE)
    for number, image in enumerate(images):
        target = tmp_path / "photos" / ("deeper" if number >= 65 else "") / f"{number:02d}.png"
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(target)
    (tmp_path / "photos/.hidden").write_text("no image")
    return tmp_path / "photos", images / 255


def _rows(out: str) -> list[tuple[str, str, float]]:
    header, *rows = csv.reader(StringIO(out))
    assert header[:3] == ["file", "class", "probability"]
    return [(file, name, float(probability)) for file, name, probability, *_ in rows]


def _expected(probabilities: Tensor) -> list[tuple[str, float]]:
    best = probabilities.max(dim=1)
    return [
        (f"class-{label}", pytest.approx(share, abs=1e-4))
        for label, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def test_a_folder_of_photos_by_the_bare_classifier(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = refine(capsys, "predict", models[0], photos[0], "--csv")
    rows = _rows(ended.out)
    assert ended.status == 0, ended.err
    assert [Path(file).name for file, _, _ in rows] == [f"{number:02d}.png" for number in range(70)]
    with torch.inference_mode():
        expected = _expected(classifiers.load(models[0])[0](photos[1]).softmax(dim=1))
    assert [row[1:] for row in rows] == expected
    assert len({name for name, _ in expected}) > 1


def test_the_same_photos_by_the_defended_classifier(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    classifier, defense = models
    bare = refine(capsys, "predict", classifier, photos[0], "--csv")
    defended = refine(capsys, "predict", classifier, photos[0], "--csv", "--defense", defense)
    with torch.inference_mode():
        assert [row[1:] for row in _rows(defended.out)] == _expected(load(defense, classifier).probabilities(photos[1]))
    assert defended.out != bare.out


def test_where_the_undefended_classifier_differs_it_is_told(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    bare, defended = (
        refine(capsys, "predict", models[0], photos[0], "--json", *more).out for more in ([], ["--defense", models[1]])
    )
    rows, without = json.loads(defended), json.loads(bare)
    assert "undefended" not in without[0]
    expected = [b["class"] if b["class"] != d["class"] else None for b, d in zip(without, rows, strict=True)]
    assert [row["undefended"] for row in rows] == expected
    assert len({*expected}) > 1
    assert rows[0].keys() == {"file", "label", "class", "probability", "undefended"}
    assert rows[0]["class"] == f"class-{rows[0]['label']}"
    header, *lines = csv.reader(
        StringIO(refine(capsys, "predict", *models[:1], photos[0], "--csv", "--defense", models[1]).out)
    )
    assert header[-1] == "undefended"
    assert [line[-1] or None for line in lines] == expected


def test_a_file_that_is_given_twice_is_told_twice(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [photos[0] / "07.png"] * 2
    assert [row[0] for row in _rows(refine(capsys, "predict", models[0], *files, "--csv").out)] == list(map(str, files))


def test_files_are_told_in_the_order_given_as_a_table(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [photos[0] / "07.png", photos[0] / "03.png"]
    lines = refine(capsys, "predict", models[0], *files).out.splitlines()
    assert lines[0].split() == ["file", "class", "probability"]
    assert [line.split()[0] for line in lines[1:]] == [str(file) for file in files]


def test_photos_of_another_size_and_kind_are_resized_as_the_data_source_does(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.jpg")
    ended = refine(capsys, "predict", models[0], tmp_path / "gray.jpg", "--csv")
    with Image.open(tmp_path / "gray.jpg") as image:
        levels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        pixels = torch.from_numpy(levels.copy()).permute(2, 0, 1)[None] / 255
        assert [row[1:] for row in _rows(ended.out)] == _expected(classifiers.load(models[0])[0](pixels).softmax(dim=1))


@pytest.mark.parametrize(
    ("content", "mentions"),
    [(b"no image at all", "not an image in one of the formats"), (b"", "not an image in one of the formats")],
)
def test_a_damaged_image_is_one_sentence_and_nothing_is_printed(
    models: tuple[Path, Path],
    photos: tuple[Path, Tensor],
    content: bytes,
    mentions: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos[0] / "65.png").write_bytes(content)
    ended = refine(capsys, "predict", models[0], photos[0])
    assert ended.is_one_sentence(f"{photos[0]}/65.png cannot be read as an image ({mentions}")


def test_all_damaged_images_are_named(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        (photos[0] / f"{number:02d}.png").write_bytes(b"no image")
    ended = refine(capsys, "predict", models[0], photos[0])
    named = ", ".join(f"{photos[0]}/{number:02d}.png" for number in range(10))
    assert ended.is_one_sentence(f"12 files cannot be read as images ({named} and 2 more); replace them or remove them")


def test_a_half_image_is_one_sentence(
    models: tuple[Path, Path], photos: tuple[Path, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = photos[0] / "00.png"
    path.write_bytes(path.read_bytes()[:200])
    assert refine(capsys, "predict", models[0], path).is_one_sentence("00.png cannot be read as an image")


def test_what_is_not_there_is_one_sentence(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/circle").symlink_to(tmp_path, target_is_directory=True)
    nothing = tmp_path / "nothing"
    for wrong, mention in (
        ((models[0], nothing), "nothing is missing; give an image or a folder of images"),
        ((models[0], tmp_path / "empty"), "empty contains no images"),
        ((models[0], tmp_path / "linked"), "circle is a link to a folder, which is not followed"),
        ((nothing, tmp_path / "linked"), "circle is a link"),
        ((nothing, models[0] / "card.json"), "nothing/card.json is missing"),
        ((models[0], models[0] / "card.json", "--defense", nothing), "nothing/card.json is missing"),
    ):
        assert refine(capsys, "predict", *wrong).is_one_sentence(mention)


def test_without_an_image_it_tells_its_use(models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "predict", models[0])
    assert ended.status == 2
    assert "Missing argument 'IMAGES...'" in ended.err
