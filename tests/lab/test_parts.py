"""What runs of a list have in common is made once, whoever needs it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from recorded_runs import name, record
from refine.core.errors import UserError
from refine_lab.cluster import parcels, submitted
from refine_lab.lists import clones
from refine_lab.lists.parts import Part, make_once, parts
from refine_lab.lists.rows import Row
from refine_lab.runs.recorded import Run
from repositories import ok

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
    return [part.key for part in parts(text, defense, "the code")]


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


def test_other_code_shares_nothing() -> None:
    text = TEXT.replace("SOURCES", "{}").replace("ATTACKS", "{}")
    one, other = (parts(text, "refine", code) for code in ("a", "b"))
    assert not {part.key for part in one} & {part.key for part in other}


def test_a_recorded_run_leaves_the_code_as_it_is(repo: Path) -> None:
    before = clones.code_of(repo)
    for path, same in (("metrics/runs/run.json", True), ("src/refine/new.py", False), ("data/own/new.dvc", False)):
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_text("{}", encoding="utf-8")
        ok(repo, "git", "add", "--force", path)
        ok(repo, "git", "commit", "-qm", "more")
        assert (clones.code_of(repo) == before) is same
        before = clones.code_of(repo)


PART = Part("key", "train-backdoor", Path("models/backdoor"))


def _makes(cache: Path, notes: list[str], called: str) -> Callable[[int], str]:
    def make(_: int) -> str:
        notes.append(called)
        return _cached(cache, b"made")

    return make


def test_a_second_list_waits_for_the_first_and_makes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    made: list[str] = []
    waits, plain = Event(), clones.lock

    def lock(project: Path, key: str, wait: bool = False) -> Any:
        if wait:
            waits.set()
        return plain(project, key, wait)

    def make(_: int) -> str:
        second.start()
        assert waits.wait(60)
        return _makes(tmp_path, made, "first")(0)

    monkeypatch.setattr(clones, "lock", lock)
    second = Thread(target=lambda: make_once(tmp_path, tmp_path, PART, _makes(tmp_path, made, "second")), daemon=True)
    make_once(tmp_path, tmp_path, PART, make)
    second.join(60)
    assert not second.is_alive()
    assert made == ["first"]
    assert caplog.messages == ["train-backdoor waits for another list, which is computing the same"]
    make_once(tmp_path, tmp_path, PART, _makes(tmp_path, made, "third"))
    assert made == ["first"]


def test_what_the_cache_has_lost_is_made_again(tmp_path: Path) -> None:
    made: list[str] = []
    for called in ("once", "again"):
        make_once(tmp_path, tmp_path, PART, _makes(tmp_path, made, called))
        shutil.rmtree(tmp_path / "files")
    assert made == ["once", "again"]


def test_what_could_not_be_made_is_tried_by_the_next(tmp_path: Path) -> None:
    def fails(_: int) -> str:
        raise UserError("no luck")

    made: list[str] = []
    with pytest.raises(UserError, match="no luck"):
        make_once(tmp_path, tmp_path, PART, fails)
    with clones.lock(tmp_path, "key") as free:
        assert free is not None
    make_once(tmp_path, tmp_path, PART, _makes(tmp_path, made, "next"))
    assert made == ["next"]


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


@pytest.mark.parametrize("called", ["../../escaped", "0" * 32, "0" * 32 + ".exe"])
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


@pytest.mark.parametrize(("called", "kind"), [("run/../../escaped", tarfile.REGTYPE), ("run/link", tarfile.SYMTYPE)])
def test_no_path_and_no_link_leads_out_of_a_recorded_folder(tmp_path: Path, called: str, kind: bytes) -> None:
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as tar:
        member = tarfile.TarInfo(called)
        member.type, member.linkname = kind, "../../elsewhere"
        tar.addfile(member, io.BytesIO())
    with pytest.raises(tarfile.TarError, match="neither a file nor a folder"):
        parcels.unpacked(hostile.getvalue(), tmp_path / "runs")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]


@pytest.mark.parametrize("names", [[], ["another"], ["run", "another"], [".."], ["."]])
def test_what_is_sent_in_the_place_of_a_run_is_refused_before_it_is_written(tmp_path: Path, names: list[str]) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for each in names:
            tar.addfile(tarfile.TarInfo(f"{each}/run.json"), io.BytesIO())
    (tmp_path / "runs/another").mkdir(parents=True)
    with pytest.raises(UserError, match="in the place of run; start the list again"):
        parcels.unpacked(content.getvalue(), tmp_path / "runs", only="run")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "another"]


def test_an_attack_waits_for_the_clean_runs_before_it_that_its_floors_are_measured_on() -> None:
    text = TEXT.replace("SOURCES", "{}").replace("ATTACKS", "{}").replace("SPLITS", "{}") + "train_refine: {}\n"
    clean = text.replace("badnets", "none")

    def row(variant: str, params: str = clean, defense: str = "refine") -> submitted.Free:
        named = {"attack": "none", "variant": variant, "defense": defense}
        return Row.model_validate(named), name(**named), params

    other = row("other", clean.replace("train_backdoor: {seed: 1}", "train_backdoor: {seed: 1, network: {}}"))
    held_out = row("held_out", clean.replace("seed: 1}\nattacks", "seed: 1, held_out: 0.2}\nattacks"))
    same, longer = row("same"), row("longer", clean.replace("train_refine: {}", "train_refine: {snapshots: 2}"))
    student = row("student", defense="distilled")
    seeded = row("seeded", clean.replace("train_backdoor: {seed: 1}", "train_backdoor: {seed: 2}"))
    refine = Row(attack="badnets")
    assert submitted._floors(refine, text, [seeded]) == {str(seeded[1])}
    assert submitted._floors(refine, text, [other, held_out]) == set()
    assert submitted._floors(refine, text, [longer, student]) == {str(longer[1]), str(student[1])}
    assert submitted._floors(refine, text, [longer, student, same, other]) == {str(same[1])}
    assert submitted._floors(Row(attack="badnets", defense="distilled"), text, [same, student]) == {str(student[1])}
    assert submitted._floors(Row(attack="none", variant="again"), clean, [same]) == set()


def test_models_that_are_not_known_are_not_looked_for() -> None:
    run = Run(Path("run"), record(name(), outputs={"models/backdoor": "a", "models/refine": "b"}), {}, {})
    assert parcels.models_of(run) == {"a", "b"}
    assert parcels.models_of(run, defended=False) == {"a"}
    assert parcels.models_of(Run(Path("run"), record(name(), outputs={}), {}, {})) == set()
