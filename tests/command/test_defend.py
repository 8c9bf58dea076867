"""`refine defend`: from a classifier's folder and a folder of photos to a defense that can be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import tiny
from commands import refine
from refine.command import defend as defending
from refine.defending.loading import load
from refine.models import classifier as classifiers
from refine.models.card import read_card
from refine.shards.reading.reader import read_split
from support import TINY_PARAMS, synthetic

COUNT = 12


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in a folder with a classifier, photos larger than it takes, and parameters."""
    monkeypatch.chdir(tmp_path)
    tiny.classifier_folder(Path("classifier"))
    for number, image in enumerate(synthetic(COUNT, 24)[0]):
        target = Path("photos") / ("deeper/still" if number % 3 else "") / f"{number:02d}.png"
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(target)
    Path("params.yaml").write_text(yaml.safe_dump({"train_refine": TINY_PARAMS["train_refine"]}), encoding="utf-8")


def test_it_writes_a_defense_for_that_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "defend", "classifier", "photos", "--out", "new/defense")
    assert (ended.status, ended.out) == (0, f"new/defense defends classifier; it was trained on {COUNT} images\n")
    defense = load(Path("new/defense"), Path("classifier"))
    card = json.loads(Path("new/defense/card.json").read_text(encoding="utf-8"))
    assert card["training"]["recipe"]["epochs"] == TINY_PARAMS["train_refine"]["recipe"]["epochs"]
    assert card["classifier_sha256"] == read_card(Path("classifier"), classifiers.ClassifierCard).weights_sha256
    with torch.inference_mode():
        probabilities = defense.probabilities(synthetic(5)[0] / 255)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(5))
    assert len(tiny.history(Path("new/defense"))) == 2
    used = refine(capsys, "predict", "classifier", "photos", "--defense", "new/defense", "--csv")
    assert len(used.out.splitlines()) == 1 + COUNT


def test_it_trains_on_the_photos_as_the_classifier_takes_them_and_knows_no_label(tmp_path: Path) -> None:
    card = read_card(Path("classifier"), classifiers.ClassifierCard)
    (tmp_path / "shards").mkdir()
    defending.write(Path("photos"), card, tmp_path / "shards")
    split = read_split(tmp_path / "shards")
    assert split.images.shape == (COUNT, 3, 16, 16)
    assert split.labels.tolist() == [0] * COUNT
    assert split.manifest.mean == card.normalization.mean
    with Image.open("photos/03.png") as image:
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    assert any(torch.equal(other, torch.from_numpy(expected.copy()).permute(2, 0, 1)) for other in split.images)


def test_parameters_of_another_file_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"train_refine": {**TINY_PARAMS["train_refine"], "seed": 7}}
    Path("other.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    Path("params.yaml").unlink()
    assert refine(capsys, "defend", "classifier", "photos", "--out", "out", "--params", "other.yaml").status == 0
    assert json.loads(Path("out/card.json").read_text(encoding="utf-8"))["training"]["seed"] == 7
    assert refine(capsys, "defend", "classifier", "photos", "--out", "more").is_one_sentence("params.yaml is missing")


def _refused(capsys: pytest.CaptureFixture[str], *mentions: str, out: str = "out") -> None:
    before = sorted(Path().rglob("*"))
    ended = refine(capsys, "defend", "classifier", "photos", "--out", out)
    assert ended.status == 1
    assert [line for line in ended.err.splitlines() if all(mention in line for mention in mentions)]
    assert ended.err.count("error: ") == 1
    assert sorted(Path().rglob("*")) == before


def test_what_is_there_already_stays(capsys: pytest.CaptureFixture[str]) -> None:
    _refused(capsys, "photos already exists; give another folder", out="photos")


def test_a_damaged_photo_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/00.png").write_bytes(b"no image")
    _refused(capsys, "photos/00.png cannot be read as an image")


def test_fewer_photos_than_a_batch_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for photo in list(Path("photos").rglob("*.png"))[5:]:
        photo.unlink()
    _refused(capsys, "train_refine.recipe", "batch")


def test_a_wrong_parameter_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"train_refine": {**TINY_PARAMS["train_refine"], "sed": 7}}
    Path("params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    _refused(capsys, "params.yaml: train_refine: 'sed' is not known, did you mean 'seed'?")


def test_an_interrupt_leaves_nothing_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("refine.training.loop.Run._epoch", interrupted)
    ended = refine(capsys, "defend", "classifier", "photos", "--out", "out")
    assert ended.status == 130
    assert ended.err.splitlines()[-1] == "error: interrupted; out was not written"
    assert not Path("out").exists()
