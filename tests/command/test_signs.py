"""`refine signs`: what the signs say of a classifier's folder, on the terminal and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from commands import refine
from refine.proof.judging.verdict import SignsResult
from support import synthetic

FAST = """
settings:
  neural_cleanse: {steps: 10, batch_size: 8, least_images: 8}
  target_vote: {rounds: 1, steps: 2, mask_steps: 2, least_images: 8, least_moved: 0.0}
  changed_answers: {least_images: 8, most_changed: 1.0, least_of_class: 2, listed: 3}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of five classes, a defense, twenty photos and settings."""
    folder = tmp_path_factory.mktemp("signs")
    tiny.classifier_folder(folder / "model", classes=5)
    tiny.defense_folder(folder / "defended", folder / "model", classes=5)
    images, _ = synthetic(20, 16, 5)
    for number, image in enumerate(images):
        target = folder / "photos" / ("deeper" if number >= 15 else "") / f"{number:02d}.png"
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(target)
    (folder / "fast.yaml").write_text(FAST)
    return folder


def test_every_sign_tells_its_score_and_abstains_until_it_is_calibrated(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--defended", place / "defended", "--settings", place / "fast.yaml", "--out", tmp_path / "signs.json")
    ended = refine(capsys, "signs", place / "model", place / "photos", *given)
    assert ended.status == 0, ended.err
    result = SignsResult.model_validate_json((tmp_path / "signs.json").read_text())
    assert [sign.sign for sign in result.signs] == ["changed_answers", "neural_cleanse", "target_vote"]
    assert (result.images, result.images_given) == (20, 20)
    for sign in result.signs:
        assert sign.decision == "abstains"
        assert sign.title in ended.out
        assert sign.meaning.split()[-1] in ended.out
    changed = result.signs[0]
    assert 0 < len(changed.changed) <= 3
    assert all((place / "photos" / each.image).is_file() for each in changed.changed)
    again = refine(capsys, "signs", place / "model", place / "photos", *given[:-1], tmp_path / "again.json")
    assert again.out == ended.out
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "signs.json").read_bytes()
    shutil.copytree(place / "defended", tmp_path / "whole/defense")  # as `refine defend` leaves it
    (tmp_path / "whole/classifier").mkdir()
    given = ("--defended", tmp_path / "whole", *given[2:-1], tmp_path / "whole.json")
    assert refine(capsys, "signs", place / "model", place / "photos", *given).out == ended.out


def test_without_a_defended_model_there_is_nothing_to_compare_with(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--settings", place / "fast.yaml", "--out", tmp_path / "signs.json")
    assert refine(capsys, "signs", place / "model", place / "photos/deeper", *given).status == 0
    signs = json.loads((tmp_path / "signs.json").read_text())["signs"]
    assert "no defended model" in signs[0]["reason"]
    assert "5 images are fewer than the 8" in signs[1]["reason"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("model", "nothing"), "nothing is missing"),
        (("photos", "photos"), "card.json is missing"),
        (("model", "photos", "--out", "photos"), "is a folder"),
        (("model", "photos", "--defended", "model"), "which is no defense"),
        (("model", "photos", "--settings", "no.yaml"), "no.yaml is missing"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str], told: str
) -> None:
    monkeypatch.chdir(place)
    assert refine(capsys, "signs", *arguments).is_one_sentence(told)
