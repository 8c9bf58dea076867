"""Taking somebody's classifier instead of training one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refine.backdoor.imported import take
from refine.backdoor.params import TrainBackdoorParams
from refine.core.errors import UserError
from refine.shards.format.manifest import Manifest
from refine.shards.reading.folder import read
from tiny import WIDTH, classifier_folder, files_of, raw


def params(place: Path, **changes: Any) -> TrainBackdoorParams:
    network = {"name": "resnet18", "width": WIDTH}
    return TrainBackdoorParams.model_validate({"import": str(place), "seed": 1, "network": network, **changes})


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    raw(tmp_path / "raw")
    return read(tmp_path / "raw/train")


def test_the_folder_is_copied_and_has_an_empty_history(manifest: Manifest, tmp_path: Path) -> None:
    own = tmp_path / "own"
    classifier_folder(own / "vendor")
    take(params(own / "vendor"), manifest, own, tmp_path / "models/backdoor")
    copied = files_of(tmp_path / "models/backdoor")
    assert (tmp_path / "models/backdoor/history.csv").read_text(encoding="utf-8").strip() in ("", "epoch")
    del copied["history.csv"]
    assert copied == files_of(own / "vendor")


@pytest.mark.parametrize(
    ("made", "changes", "sentence"),
    [
        ({}, {"network": {"name": "resnet18", "width": 32}}, "write the first one there"),
        ({"side": 24}, {}, "takes images of 24 pixels, the data set has 16; set the side of the data source to 24"),
        ({"classes": 4}, {}, "knows 4 classes, the data set has 3"),
    ],
)
def test_a_classifier_for_something_else_is_refused(
    manifest: Manifest, tmp_path: Path, made: dict[str, int], changes: dict[str, Any], sentence: str
) -> None:
    classifier_folder(tmp_path / "own/vendor", **made)
    with pytest.raises(UserError, match=sentence):
        take(params(tmp_path / "own/vendor", **changes), manifest, tmp_path / "own", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_and_a_foreign_folder_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    classifier_folder(tmp_path / "own/vendor")
    with pytest.raises(UserError, match="lies outside"):
        take(params(tmp_path / "elsewhere"), manifest, tmp_path / "own", tmp_path / "out")
    (tmp_path / "own/vendor/weights.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="safetensors"):
        take(params(tmp_path / "own/vendor"), manifest, tmp_path / "own", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"recipe": "paper"}, {"adaptive": {}}])
def test_parameters_of_a_training_are_refused_beside_an_import(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is of no use where a classifier is imported; remove it"):
        params(Path("data/own/model"), **changes)


def test_without_an_import_there_must_be_a_recipe() -> None:
    with pytest.raises(ValueError, match="recipe is missing"):
        TrainBackdoorParams.model_validate({"seed": 1, "network": {"name": "resnet18"}})
