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
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.shards.reading.held_out import held_out
from refine.shards.reading.reader import Split, read_split
from refine.training.order import Part
from refine.training.training_set import open_training_set
from support import synthetic, write_split
from tiny import CPU, Poisoned, attack, poisoned, raw, split_folder


class Settings(Section):
    """Attributes: `strength`, of nothing."""

    strength: int = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Poisoned]:
    """Folders of a training set of 60 images, clean and poisoned."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw")
    made = poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0], rate=0.2), clean)
    split_folder(folder / "split/some", made.outputs.train)
    outputs = made.outputs
    sources = {"raw": folder / "raw/train", "poisoned": outputs.train, "defender": outputs.defender}
    return {**sources, "split": folder / "split"}, made


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


class WithSplit(Section):
    """Attributes: `split`, the name of one."""

    split: str = "some"


def test_a_split_comes_as_flags_and_tells_no_more_of_what_is_poisoned(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    params = DefenseDataParams(seed=1)
    made = given.give("shrinkpad", "poisoned_train", WithSplit(), params, data[0], tmp_path / "out")
    assert made.split == material.GivenSplit(name="some", clean=12, poisoned=3, gate="passed", abstain=False)
    assert material.read(tmp_path / "out").split == made.split
    images, _ = open_training_set(tmp_path / "out/train", ("label", "split_clean", "split_poisoned"), CPU)
    _, labels, clean, poison = images.delivered(next(images.blocks([Part(0, 0, 8)])), CPU.device)
    assert labels.tolist() == data[1].poisoned_train.labels[:8].tolist()
    rows = _images(tmp_path / "out")
    assert {tuple(info) for info in rows.infos} == {("split_clean", "split_poisoned")}
    assert rows.flags("split_clean")[:8].long().tolist() == clean.tolist()
    assert rows.flags("split_poisoned")[:8].long().tolist() == poison.tolist()
    assert (int(rows.flags("split_clean").sum()), int(rows.flags("split_poisoned").sum())) == (12, 3)
    assert (data[1].poisoned_train.flags("poisoned") | ~rows.flags("split_poisoned")).all()  # the oracle told the truth


def test_a_split_that_is_not_there_or_of_another_training_set_is_refused(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    params = DefenseDataParams(seed=1)
    with pytest.raises(UserError, match=r"split/other is missing; list other in `splits` of params.yaml and run"):
        given.give("x", "poisoned_train", WithSplit(split="other"), params, data[0], tmp_path / "out")
    moved = {**data[0], "poisoned": data[0]["raw"]}
    with pytest.raises(UserError, match=r"is the split of another training set than .*; run `dvc repro split-samples@"):
        given.give("x", "poisoned_train", WithSplit(), params, moved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


def test_where_images_are_held_out_the_defender_has_these_alone(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    own = data[1].train.keys[held_out(60, 0.25)].tolist()
    params = DefenseDataParams(seed=1, labeled=0.2)
    clean = open_clean(data[0]["raw"], data[0]["raw"].parent / "test", 0.25)
    outputs = Outputs.below(data[0]["raw"].parent.parent / "held-out")
    poison_dataset("badnets", attack("badnets", data[1].train, rate=0.2), 1, clean, outputs)
    sources = {**data[0], "poisoned": outputs.train, "defender": outputs.defender}
    given.give("shrinkpad", "unlabeled", Settings(), params, sources, tmp_path / "all", 0.25)
    assert _images(tmp_path / "all").keys.tolist() == own
    given.give("shrinkpad", "labeled", Settings(), params, sources, tmp_path / "some", 0.25)
    some = _images(tmp_path / "some").keys.tolist()
    assert len(some) == 3
    assert set(some) < set(own)
    given.give("shrinkpad", "poisoned_train", Settings(), params, sources, tmp_path / "poisoned", 0.25)
    assert not set(_images(tmp_path / "poisoned").keys.tolist()) & set(own)


def test_images_of_another_source_come_with_the_trigger_that_some_have_and_do_not_tell(
    data: tuple[dict[str, Path], Poisoned], tmp_path: Path
) -> None:
    write_split(tmp_path / "others", *synthetic(20, classes=2, seed=5), classes=2)
    folders = data[0]["raw"], data[0]["raw"].parent / "test"
    clean = open_clean(*folders, others=tmp_path / "others", contaminated=0.1)
    outputs = Outputs.below(tmp_path / "made")
    poison_dataset("badnets", attack("badnets", data[1].train, rate=0.2), 1, clean, outputs)
    sources = {**data[0], "defender": outputs.defender}
    given.give("distilled", "unlabeled", Settings(), DefenseDataParams(seed=1), sources, tmp_path / "out")
    got = _images(tmp_path / "out")
    assert torch.equal(got.images, read_split(outputs.defender).images)
    assert got.infos == [{}] * 20
    assert not got.labels.any()
