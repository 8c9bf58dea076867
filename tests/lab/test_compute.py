"""Computing a list of runs: in clones that nobody shares, each run once, whatever becomes of the others."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forks import with_forks
from refine.core.errors import UserError
from refine_lab.lists import clones, compute
from refine_lab.lists.clones import Clone
from refine_lab.lists.rows import Row, Rows
from refine_lab.runs.recorded import HOME, read_all
from repositories import ok
from support import run

NAME = "folder-quick-badnets-refine-default-s1"
LISTED = Rows(preset="quick", rows=[Row(attack="badnets"), Row(attack="none", variant="benign")])


@pytest.fixture(autouse=True)
def environs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Environments in which lists run DVC, whose processes are forks here."""
    found: list[dict[str, str]] = []
    started = subprocess.run

    def starting(command: list[str], **others: Any) -> subprocess.CompletedProcess[Any]:
        if command[0] != "dvc":
            return started(command, **others)
        found.append(others.pop("env"))
        return started(command, env=with_forks(found[-1]), **others)

    monkeypatch.setattr(compute.subprocess, "run", starting)
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, preset: Path) -> list[str]:
    """Rows that are computed, by their attack; computing is replaced by an empty folder, and fails for `badnets`."""
    attacks: list[str] = []

    def computing(_preset: str, row: Row, *_others: Any) -> Path:
        attacks.append(row.attack)
        if row.attack == "badnets":
            raise UserError("no luck")
        folder = preset / HOME / f"folder-quick-{row.attack}-refine-{row.variant}-s1"
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
        return folder

    monkeypatch.setattr(compute, "_computed", computing)
    return attacks


def test_a_list_is_computed_in_a_clone_once_and_committed(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (preset / "params.yaml").read_bytes()
    compute.compute(LISTED, ["badnets"], commit=True, project=preset)
    assert list(read_all(preset / HOME)) == [NAME]
    assert ok(preset, "git", "log", "-1", "--format=%s").strip() == f"Record {NAME}"
    assert ok(preset, "git", "status", "--porcelain", "metrics", "params.yaml") == ""
    assert (preset / "params.yaml").read_bytes() == before
    assert run(preset / ".rows/1", "dvc", "cache", "dir").stdout.strip() == str(preset / ".dvc/cache")

    monkeypatch.setattr(compute, "_computed", lambda *_: pytest.fail("a recorded run was computed again"))
    compute.compute(LISTED, ["badnets"], commit=True, project=preset)


def test_a_row_with_settings_of_its_own_is_computed_though_the_cache_has_its_parameters(
    preset: Path, environs: list[dict[str, str]]
) -> None:
    def cached() -> set[Path]:
        return {path for path in (preset / ".dvc/cache").rglob("*") if path.is_file()}

    before = cached()
    machine: dict[str, int | str] = {"REFINE_THREADS": 1, "ATEN_CPU_CAPABILITY": "default"}
    row = Row(attack="badnets", variant="plain", machine=machine, retuned=False)
    compute.compute(Rows(preset="quick", rows=[row]), [], commit=False, project=preset)
    (found,) = read_all(preset / HOME).values()
    assert found.record.machine == row.machine
    assert found.record.retuning is None
    assert found.record.changes == {}
    assert set(found.record.runtime) == {"download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"}
    for stage in ("train-backdoor", "train-refine", "evaluate"):
        assert found.record.runtime[stage]["threads"] == 1
    (environ,) = environs
    assert environ["ATEN_CPU_CAPABILITY"] == "default"
    assert cached() == before
    assert not (preset / ".rows" / found.folder.name).exists()


def test_a_row_that_fails_says_why_and_the_others_go_on(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=f"1 of 2 rows failed, each for the reason given above: {NAME}; mend"):
        compute.compute(LISTED, [], commit=True, project=preset)
    assert computed == ["badnets", "none"]
    assert f"{NAME} failed: no luck" in caplog.messages
    assert ok(preset, "git", "log", "-1", "--format=%s").strip() == "Record folder-quick-none-refine-benign-s1"


def test_the_status_that_dvc_ends_with_is_in_the_log(preset: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = Row(attack="badnets", changes={"attacks.badnets.rate": 0.001})  # less than one image
    with pytest.raises(UserError, match="1 of 1 rows failed"):
        compute.compute(Rows(preset="quick", rows=[row]), [], commit=False, project=preset)
    assert any("`dvc repro train-backdoor` ended with status " in message for message in caplog.messages)
    assert not (preset / HOME).exists()


def test_a_row_that_another_process_computes_is_passed_over_with_a_word(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with clones.lock(preset, NAME):
        compute.compute(LISTED, [], commit=False, project=preset)
    assert computed == ["none"]
    assert f"{NAME} is passed over: another process is computing it" in caplog.messages


def test_a_word_that_is_no_attack_of_the_list_is_refused(preset: Path) -> None:
    with pytest.raises(UserError, match="no row has the attack badnet; the list has badnets, none"):
        compute.compute(LISTED, ["badnet"], commit=False, project=preset)


def test_changes_that_the_clones_do_not_have_are_named(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("dvc.yaml", "stages/evaluate.py", "src/refine/new.py", "src/refine/newer.py"):
        with (preset / name).open("a", encoding="utf-8") as file:
            file.write("# a remark\n")
    compute.compute(LISTED, ["none"], commit=False, project=preset)
    (warning,) = (message for message in caplog.messages if message.startswith("warning: "))
    assert warning.endswith(
        "without what is not committed here: dvc.yaml, stages/evaluate.py, src/refine/new.py and 1 more"
    )
    assert computed == ["none"]


def test_a_clean_checkout_has_no_warning(preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture) -> None:
    compute.compute(LISTED, ["none"], commit=False, project=preset)
    assert computed == ["none"]
    assert caplog.messages == []


@pytest.mark.parametrize("tracked", [True, False])
def test_a_preset_that_is_not_committed_is_refused_before_anything_is_computed(
    preset: Path, computed: list[str], tracked: bool
) -> None:
    path = preset / "presets/quick.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
    if not tracked:
        ok(preset, "git", "rm", "-q", "--cached", "presets/quick.yaml")
        ok(preset, "git", "commit", "-qm", "without")
    with pytest.raises(UserError, match=r"presets/quick.yaml is not committed as it is here; commit it"):
        compute.compute(LISTED, ["none"], commit=False, project=preset)
    assert computed == []


def test_a_row_with_another_defense_computes_what_that_needs_and_no_other(preset: Path) -> None:
    listed = Rows(preset="quick", rows=[Row(attack="badnets", defense="shrinkpad", variant="padded")])
    compute.compute(listed, [], commit=False, project=preset)
    (found,) = read_all(preset / HOME).values()
    assert found.folder.name == "folder-quick-badnets-shrinkpad-padded-s1"
    assert found.record.changes == {"defenses": ["shrinkpad"]}
    assert set(found.record.runtime) == {
        f"{stage}@shrinkpad" for stage in ("give-data", "train-defense", "evaluate-defense")
    }
    assert "models/defenses/shrinkpad" in found.record.outputs
    assert found.before == json.loads((preset / "metrics/no_defense.json").read_text(encoding="utf-8"))
    assert found.after.keys() == found.before.keys()


def test_a_clone_stays_locked_while_dvc_outlives_a_list_that_was_killed(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    started: list[subprocess.Popen[bytes]] = []

    def outlive(_command: list[str], pass_fds: set[int], **_others: Any) -> subprocess.CompletedProcess[bytes]:
        started.append(subprocess.Popen(waits, stdin=subprocess.PIPE, pass_fds=pass_fds))
        return subprocess.CompletedProcess(waits, 0)

    monkeypatch.setattr(compute.subprocess, "run", outlive)
    with clones.lock(preset, "1") as clone, clones.lock(preset, NAME) as row:
        assert clone is not None
        assert row is not None
        compute.repro(Clone(preset / ".rows/1", clone, "the code"), {}, ["evaluate"], {row})
    for name in ("1", NAME):
        with clones.lock(preset, name) as held:
            assert held is None
    started[0].communicate()
    for name in ("1", NAME):
        with clones.lock(preset, name) as held:
            assert held is not None


def _track(project: Path) -> None:
    """Commits a file that DVC tracks."""
    (project / "data/own/attack/tracked.bin").write_bytes(b"tracked")
    ok(project, "dvc", "add", "-q", "data/own/attack/tracked.bin")
    ok(project, "git", "add", "-A")
    ok(project, "git", "commit", "-qm", "track")


def test_data_that_dvc_tracks_come_into_the_clones(preset: Path, caplog: pytest.LogCaptureFixture) -> None:
    _track(preset)
    with clones.shared(preset) as clone:
        assert (clone.folder / "data/own/attack/tracked.bin").read_bytes() == b"tracked"
    with clones.alone(preset, "alone", 0) as clone:
        assert (clone.folder / "data/own/attack/tracked.bin").read_bytes() == b"tracked"
        assert not list((clone.folder / ".dvc/cache").rglob("*.bin"))
    (clone.folder.parent / "1/data/own/attack/tracked.bin").unlink()
    for path in (preset / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and path.read_bytes() == b"tracked":
            path.unlink()
    with clones.shared(preset) as clone:
        assert not (clone.folder / "data/own/attack/tracked.bin").exists()
    assert "data that data/own/attack/tracked.bin.dvc tracks is neither in DVC's cache nor can it be" in caplog.text


def test_data_that_the_cache_lacks_is_pulled_with_the_settings_of_the_checkout(preset: Path, tmp_path: Path) -> None:
    _track(preset)
    ok(preset, "dvc", "remote", "add", "-q", "--local", "-d", "here", str(tmp_path / "remote"))
    ok(preset, "dvc", "push", "-q", "data/own/attack/tracked.bin")
    shutil.rmtree(preset / ".dvc/cache/files/md5" / hashlib.md5(b"tracked", usedforsecurity=False).hexdigest()[:2])
    with clones.shared(preset) as clone:
        assert (clone.folder / "data/own/attack/tracked.bin").read_bytes() == b"tracked"
        assert ok(clone.folder, "dvc", "cache", "dir").strip() == str(preset / ".dvc/cache")
