"""What runs of a list have in common is made once, whoever needs it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import time
from pathlib import Path
from threading import Thread

import pytest

from recorded_runs import name, record
from refine.core.errors import UserError
from refine_lab.lists import clones, parcels, submitted
from refine_lab.lists.parts import Part, make_once, parts
from refine_lab.lists.rows import Row
from refine_lab.runs.recorded import Run

TEXT = """
download: {source: folder}
sources: SOURCES
poison_dataset: {attack: {name: badnets}, seed: 1}
attacks: ATTACKS
train_backdoor: {seed: 1}
splits: []
split_settings: SPLITS
defense_settings: {}
"""


def _keys(defense: str = "refine", **others: str) -> list[str]:
    text = TEXT
    for each in ("SOURCES", "ATTACKS", "SPLITS"):
        text = text.replace(each, others.get(each, "{}"))
    for before, after in others.items():
        text = text.replace(before, after)
    return [part.key for part in parts(text, defense, "a commit")]


def test_runs_share_what_does_not_depend_on_their_settings() -> None:
    plain = _keys()
    assert len(plain) == len(set(plain)) == 2
    assert plain == _keys("shrinkpad") == _keys("ft", SOURCES="{other: {side: 8}}", ATTACKS="{bpp: {levels: 4}}")
    assert _keys("dbr")[:2] == plain
    assert _keys("dbr") == _keys("dst")
    assert len(_keys("dbr")) == 3


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        ({"SOURCES": "{folder: {side: 8}}"}, [True, True, True]),
        ({"ATTACKS": "{badnets: {rate: 0.2}}"}, [False, True, True]),
        ({"seed: 1}\nsplits": "seed: 2}\nsplits"}, [False, True, True]),
        ({"SPLITS": "{sd: {draws: 2}}"}, [False, False, True]),
        ({"SPLITS": "{oracle: {purity: 0.5}}"}, [False, False, False]),
    ],
)
def test_what_differs_is_not_shared(change: dict[str, str], differ: list[bool]) -> None:
    plain, other = _keys("dbr"), _keys("dbr", **change)
    assert [one != two for one, two in zip(plain, other, strict=True)] == differ


def test_another_commit_shares_nothing() -> None:
    one, other = (
        parts(TEXT.replace("SOURCES", "{}").replace("ATTACKS", "{}"), "refine", commit) for commit in ("a", "b")
    )
    assert not {part.key for part in one} & {part.key for part in other}


def test_a_second_list_waits_for_the_first_and_makes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    part, made, locks = Part("key", "train-backdoor"), [], []

    def make(lock: int) -> None:
        locks.append(lock)
        second.start()
        while not caplog.messages:
            time.sleep(0.01)
        made.append("first")

    second = Thread(target=lambda: make_once(tmp_path, part, lambda _: made.append("second")))
    make_once(tmp_path, part, make)
    second.join(60)
    assert not second.is_alive()
    assert made == ["first"]
    assert caplog.messages == ["train-backdoor waits for another list, which is computing the same"]
    make_once(tmp_path, part, lambda _: made.append("third"))
    assert made == ["first"]


def test_what_could_not_be_made_is_tried_by_the_next(tmp_path: Path) -> None:
    def fails(_: int) -> None:
        raise UserError("no luck")

    part, made = Part("key", "download"), []
    with pytest.raises(UserError, match="no luck"):
        make_once(tmp_path, part, fails)
    with clones.lock(tmp_path, "key") as free:
        assert free is not None
    make_once(tmp_path, part, lambda _: made.append(1))
    assert made == [1]


def _cached(cache: Path, content: bytes, ending: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
    path = cache / "files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def test_models_travel_from_cache_to_cache(tmp_path: Path) -> None:
    file = _cached(tmp_path / "one", b"weights")
    folder = _cached(tmp_path / "one", json.dumps([{"md5": file, "relpath": "a"}]).encode(), ".dir")
    lost = _cached(tmp_path / "one", json.dumps([{"md5": "0" * 32, "relpath": "a"}]).encode(), ".dir")
    sent = parcels.with_models(tmp_path / "one", [folder, lost, file, "1" * 32])
    parcels.take_models(sent, tmp_path / "two")
    there = {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert set(there) == {file[2:], folder[2:]}
    assert there[file[2:]] == b"weights"
    parcels.take_models(sent, tmp_path / "two")
    parcels.take_models(b"", tmp_path / "three")
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("called", ["../../escaped", "ab/" + "0" * 30, "00/" + "0" * 30 + ".exe"])
def test_what_is_not_what_it_is_called_is_not_taken(tmp_path: Path, called: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        entry = tarfile.TarInfo(called)
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"bad"))
    with pytest.raises(UserError, match="which is not what it is called"):
        parcels.take_models(content.getvalue(), tmp_path / "cache")
    assert not list(tmp_path.rglob("*escaped*"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_recorded_folders_are_written_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "one/run/deep").mkdir(parents=True)
    (tmp_path / "one/run/deep/file").write_text("content", encoding="utf-8")
    (made,) = parcels.unpacked(parcels.packed([tmp_path / "one/run"]), tmp_path / "two")
    assert made == tmp_path / "two/run"
    assert (made / "deep/file").read_text(encoding="utf-8") == "content"
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("run/../../escaped"), io.BytesIO())
    with pytest.raises(tarfile.TarError):
        parcels.unpacked(hostile.getvalue(), tmp_path / "three")
    assert not [path for path in (tmp_path / "three").rglob("*") if path.is_file()]


def test_an_attack_waits_for_the_clean_runs_before_it_with_the_same_classifier() -> None:
    text = TEXT.replace("SOURCES", "{}").replace("ATTACKS", "{}").replace("SPLITS", "{}")
    clean = text.replace("badnets", "none")
    before = [
        (Row(attack="none", variant=variant), name(attack="none", variant=variant), params)
        for variant, params in (
            ("same", clean),
            ("other", clean.replace("train_backdoor: {seed: 1}", "train_backdoor: {seed: 2}")),
            ("held_out", clean.replace("seed: 1}\nattacks", "seed: 1, held_out: 0.2}\nattacks")),
        )
    ]
    assert submitted._floors(Row(attack="badnets"), text, before) == {str(before[0][1])}
    assert submitted._floors(Row(attack="badnets"), text, before[1:]) == set()
    assert submitted._floors(Row(attack="none", variant="again"), clean, before) == set()


def test_models_that_are_not_known_are_not_looked_for() -> None:
    run = Run(Path("run"), record(name(), outputs={"models/backdoor": "a", "models/refine": "b"}), {}, {})
    assert parcels.models_of(run) == {"a", "b"}
    assert parcels.models_of(run, defended=False) == {"a"}
    assert parcels.models_of(Run(Path("run"), record(name(), outputs={}), {}, {})) == set()
