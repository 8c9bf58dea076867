"""An attack's folder: exact again after loading, and one sentence where it is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from refine.core.errors import UserError
from refine.poisoning import saved
from tiny import attack, poisoned, raw


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BadNets on 16 pixels, where its texture is random."""
    folder = tmp_path_factory.mktemp("saved")
    clean = raw(folder / "raw")
    return poisoned(folder, "badnets", attack("badnets", clean[0], rate=0.2, target=1), clean).outputs.attack


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "attack"))


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "attack.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")


def test_settings_tensors_and_setting_come_back(folder: Path) -> None:
    loaded = saved.load(folder)
    assert loaded.params.model_dump() == {"rate": 0.2, "target": 1, "patch_side": None}
    assert (loaded.setting.num_classes, loaded.setting.side) == (3, 16)
    assert loaded.tensors["pattern"].dtype == torch.uint8
    assert loaded.tensors["pattern"].shape == (3, 2, 2)


def test_the_record_lists_effective_settings_and_both_rates(folder: Path) -> None:
    record = json.loads((folder / "attack.json").read_text(encoding="utf-8"))
    assert record["attack"] == "badnets"
    assert record["seed"] == 1
    assert len(record["poisoned"]) == 12
    assert record["rate_of_dataset"] == record["rate_of_classes"] == 0.2
    assert record["settings"] == {"rate": 0.2, "target": 1, "patch_side": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attack": "badnet"}, "did you mean 'badnets'"),
        ({"attack": "../attacks/badnets"}, "is not known"),
        ({"attack": "os"}, "is not known"),
        ({"settings": {"rate": 2.0}}, "attack.json cannot be used .rate: "),
        ({"settings": {"color": 1}}, "attack.json cannot be used .all of it: 'color' is not known"),
        ({"surprise": 1}, "attack.json cannot be used .surprise: "),
        ({"side": "16"}, "attack.json cannot be used .side: "),
        ({"side": 10**9}, "attack.json cannot be used .side: "),
        ({"num_classes": 10**12}, "attack.json cannot be used .num_classes: "),
        ({"num_classes": 1}, "target 1 is not a class"),
        ({"tensors_sha256": "0" * 64}, "sha256 differs"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_in_one_sentence(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    _edit(folder, **changes)
    with pytest.raises(UserError, match=said):
        saved.load(folder)


@pytest.mark.parametrize("name", ["attack.json", "tensors.safetensors"])
def test_a_missing_file_is_named_with_the_remedy(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing; run `dvc repro poison-dataset`"):
        saved.load(folder)


def test_a_cut_tensor_file_is_refused(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"tensors\.safetensors is not the file"):
        saved.load(folder)


def test_a_record_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "attack.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"attack\.json is not valid JSON"):
        saved.load(folder)
