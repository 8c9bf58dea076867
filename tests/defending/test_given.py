"""What a defender is given: no more than its data regime allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from refine.core.errors import UserError
from refine.core.params import Section
from refine.defending import given, material
from refine.defending.params import DefenseDataParams
from refine.defending.protocol.defense import Regime
from refine.shards.reading.reader import Split, read_split
from tiny import Poisoned, attack, poisoned, raw


class Settings(Section):
    """Attributes: `strength`, of nothing."""

    strength: int = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Poisoned]:
    """Folders of a training set of 60 images, clean and poisoned."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw")
    made = poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0], rate=0.2), clean)
    return {"raw": folder / "raw/train", "poisoned": made.outputs.train}, made


def _give(data: tuple[dict[str, Path], Poisoned], regime: Regime, out: Path, **params: float) -> material.Given:
    return given.give("shrinkpad", regime, Settings(), DefenseDataParams(seed=1, **params), data[0], out)


def _images(out: Path) -> Split:
    return read_split(out / material.IMAGES)


def test_without_data_there_are_settings_alone(data: tuple[dict[str, Path], Poisoned], tmp_path: Path) -> None:
    got = _give(data, "none", tmp_path / "out")
    assert material.read(tmp_path / "out") == got
    assert got.settings == {"strength": 3}
    assert got.images == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["given.json"]


def test_labeled_images_are_a_share_of_the_clean_ones_with_their_labels(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    assert _give(data, "labeled", tmp_path / "out", labeled=0.25).images == 15
    got, clean = _images(tmp_path / "out"), data[1].train
    rows = torch.searchsorted(clean.keys, got.keys)
    assert torch.equal(got.images, clean.images[rows])
    assert torch.equal(got.labels, clean.labels[rows])
    assert len(set(got.labels.tolist())) == 3


def test_another_seed_chooses_others_and_the_same_seed_the_same(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    chosen = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        params = DefenseDataParams(seed=seed, labeled=0.25)
        given.give("shrinkpad", "labeled", Settings(), params, data[0], tmp_path / name)
        chosen.append(_images(tmp_path / name).keys.tolist())
    assert chosen[0] == chosen[1] != chosen[2]


def test_unlabeled_images_come_without_labels(data: tuple[dict[str, Path], Poisoned], tmp_path: Path) -> None:
    assert _give(data, "unlabeled", tmp_path / "out").images == 60
    got = _images(tmp_path / "out")
    assert torch.equal(got.images, data[1].train.images)
    assert not got.labels.any()


def test_the_poisoned_training_set_comes_whole_and_does_not_tell_what_is_poisoned(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    assert _give(data, "poisoned_train", tmp_path / "out").images == 60
    got, poison = _images(tmp_path / "out"), data[1].poisoned_train
    assert torch.equal(got.images, poison.images)
    assert torch.equal(got.labels, poison.labels)
    assert any(info["poisoned"] for info in poison.infos)
    assert got.infos == [{}] * 60


@pytest.mark.parametrize("regime", get_args(Regime))
def test_it_is_the_same_bytes_each_time(data: tuple[dict[str, Path], Poisoned], tmp_path: Path, regime: Regime) -> None:
    contents = []
    for name in ("one", "other"):
        _give(data, regime, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.name, path.read_bytes()) for path in files])
    assert contents[0] == contents[1]


def test_a_share_that_holds_no_image_is_refused(data: tuple[dict[str, Path], Poisoned], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"defense_data.labeled 0.001 of 60 images is none; raise it"):
        _give(data, "labeled", tmp_path / "out", labeled=0.001)
    assert not (tmp_path / "out").exists()


def test_a_damaged_folder_is_refused(data: tuple[dict[str, Path], Poisoned], tmp_path: Path) -> None:
    _give(data, "none", tmp_path / "out")
    path = tmp_path / "out/given.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "regime": "all"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"given.json cannot be used \(regime: .*; run `dvc repro`"):
        material.read(tmp_path / "out")
