"""`refine stress`: from a classifier's folder and photos or shards to a file and a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import stressed
import tiny
from commands import refine
from refine.proof.stress.defender import built_in_defender, refine_defender
from refine.proof.stress.result import StressResult
from refine.training.training_set import Resident
from support import TINY_PARAMS, synthetic

PARAMS = "--params", "params.yaml"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stressed.model(Path("model"))
    stressed.images(Path("shards"))
    content = {"train_refine": TINY_PARAMS["train_refine"]}
    Path("params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    settings = stressed.params().model_dump(exclude={"seed"})
    Path("quick.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def test_it_writes_a_file_and_tells_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(
        capsys, "stress", "model", "shards", "--settings", "quick.yaml", "--labeled", "--out", "new/s.json", *PARAMS
    )
    assert ended.status == 0, ended.err
    found = StressResult.model_validate(json.loads(Path("new/s.json").read_text(encoding="utf-8")))
    assert (found.labeled, found.defense, len(found.plants)) == (True, "refine", 1)
    assert "No certificate" in ended.out
    assert [path.name for path in Path("new").iterdir()] == ["s.json"]
    again = refine(capsys, "stress", "model", "shards", "--out", "new/s.json")
    assert again.is_one_sentence("new/s.json already exists")


def test_photos_do_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    for number, image in enumerate(synthetic(100, 24)[0]):
        target = Path("photos") / ("deeper" if number % 2 else "") / f"{number:03d}.png"
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(target)
    assert refine(capsys, "stress", "model", "photos", "--settings", "quick.yaml", *PARAMS).status == 0
    assert not json.loads(Path("stress.json").read_text(encoding="utf-8"))["labeled"]
    refused = refine(capsys, "stress", "model", "photos", "--settings", "quick.yaml", "--labeled", "--out", "b.json")
    assert refused.is_one_sentence("no folder of shards")


def test_too_few_images_and_wrong_settings_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    ended = refine(capsys, "stress", "model", "shards", *PARAMS)
    assert ended.status == 1
    assert "needs 400 images or more, and there are 120" in ended.err
    Path("quick.yaml").write_text("seeds: 1\n", encoding="utf-8")
    wrong = refine(capsys, "stress", "model", "shards", "--settings", "quick.yaml", *PARAMS)
    assert wrong.is_one_sentence("did you mean 'seed'?")
    assert sorted(Path().rglob("*")) == before


def test_without_a_file_the_defense_is_that_of_refine_defend() -> None:
    images = Resident(synthetic(60)[0], ())
    found = built_in_defender(Path("model"), images, tiny.CPU)
    assert found.settings["transform"]["name"] == "encoder_decoder"
    assert found.settings["recipe"]["batch_size"] == 32
    assert found.least == 2


def test_a_defender_needs_a_batch_of_images() -> None:
    assert refine_defender(tiny.refine_params(), tiny.CPU).least == 8
    assert refine_defender(tiny.refine_params(unlabeled_fraction=0.25), tiny.CPU).least == 32
    assert refine_defender(tiny.refine_params({"drop_last": False}), tiny.CPU).least == 1
