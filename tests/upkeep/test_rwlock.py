"""A broken lock file of DVC goes where nobody uses it, and stays where somebody may."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dvc.lock
import pytest
import zc.lockfile

from commands import Ended, refine
from gates import Gate, group, program
from refine.core.errors import UserError
from refine.upkeep import rwlock
from repositories import ok
from support import environment, run

WHOLE = b'{"read": {"/p/data": [{"pid": 4194999, "cmd": "dvc repro"}]}, "write": {}}'
BROKEN = {"cut": WHOLE[:50], "empty": b"", "of zeros": bytes(100), "of another file": b"\xff\xfe", "no mapping": b"[]"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a DVC project, in which the test stands."""
    (tmp_path / "project/.dvc/tmp/exps").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize("name", rwlock.FILES)
@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_one_that_nobody_uses_is_removed_in_a_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    (project / name).write_bytes(BROKEN[damage])
    told = refine(capsys, "unlock").err
    assert not (project / name).exists()
    assert told == f"{project / name} was damaged, as by a kill or a full disk, and no process was using it: removed\n"


@pytest.mark.parametrize("content", [WHOLE, b"{}", None], ids=["with notes", "without notes", "absent"])
def test_a_healthy_one_stays_and_nothing_is_said(
    project: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = project / rwlock.FILES[0]
    if content is not None:
        path.write_bytes(content)
    assert refine(capsys, "unlock") == Ended(0, "", "")
    assert (path.read_bytes() if path.exists() else None) == content


def _stays(project: Path, content: bytes, told: str) -> None:
    path = project / rwlock.FILES[0]
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path} is damaged, and {told} may be using it; wait until it ends"):
        rwlock.mend(project)
    assert path.read_bytes() == content


def test_one_that_a_command_of_dvc_in_the_project_may_be_using_stays(project: Path, tmp_path: Path) -> None:
    (project / "data").mkdir()
    with group(project / "data", sys.executable, program(tmp_path, "dvc"), "repro", env=environment()) as living:
        assert living.stdout is not None
        living.stdout.readline()
        _stays(project, b"", rf"process {living.pid} \(`dvc repro`\)")
    assert rwlock.mend(project) == [project / rwlock.FILES[0]]


@pytest.mark.parametrize(
    ("place", "words"),
    [("elsewhere", ["dvc", "repro"]), ("project", ["dvc", "daemon"]), ("project", ["other", "repro"])],
)
def test_one_that_other_processes_do_not_use_is_removed(
    project: Path, tmp_path: Path, place: str, words: list[str]
) -> None:
    (tmp_path / "elsewhere/.dvc").mkdir(parents=True)
    (project / rwlock.FILES[0]).touch()
    command = (sys.executable, program(tmp_path, words[0]), words[1])
    with group(tmp_path / place, *command, env=environment()) as living:
        assert living.stdout is not None
        living.stdout.readline()
        assert rwlock.mend(project) == [project / rwlock.FILES[0]]


def test_one_that_names_a_living_process_stays(project: Path) -> None:
    _stays(
        project, WHOLE.replace(b"4194999", str(os.getppid()).encode())[:60], f"process {os.getppid()}, which it names,"
    )


def test_a_process_that_began_later_is_not_the_one_that_it_names(project: Path) -> None:
    path = project / rwlock.FILES[0]
    path.write_bytes(WHOLE.replace(b"4194999", str(os.getppid()).encode())[:60])
    os.utime(path, (1e9, 1e9))
    assert rwlock.mend(project) == [path]


def test_one_stays_while_dvc_holds_its_locks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc.lock, "DEFAULT_TIMEOUT", 0)
    for name in ("lock", "rwlock.lock"):
        held = zc.lockfile.LockFile(str(project / ".dvc/tmp" / name))
        _stays(project, b"", "a command of DVC")
        held.close()


def test_one_that_was_only_being_written_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / rwlock.FILES[0]
    path.touch()
    plain = dvc.lock.make_lock

    def late(*given: object, **named: object) -> object:
        path.write_bytes(WHOLE)
        return plain(*given, **named)

    monkeypatch.setattr(dvc.lock, "make_lock", late)
    assert rwlock.mend(project) == []
    assert path.read_bytes() == WHOLE


def test_outside_a_project_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refine(capsys, "unlock").is_one_sentence("lies in no DVC project; go to the checkout's folder")


def test_the_real_dvc_is_helped_and_not_disturbed(tmp_path: Path) -> None:
    """DVC writes the file in place: once a version writes it whole or not at all, nothing has to be mended any more."""
    ok(tmp_path, "dvc", "init", "--no-scm", "-q")
    gate = Gate(tmp_path, at="")
    pipeline = f"stages: {{wait: {{cmd: cat {gate.variables['GATE']}, deps: [data]}}}}\n"
    (tmp_path / "dvc.yaml").write_text(pipeline, encoding="utf-8")
    (tmp_path / "data").touch()
    path = tmp_path / rwlock.FILES[0]
    with group(tmp_path, "dvc", "repro", env=environment()) as first:
        with gate.reached(first):
            notes = path.read_bytes()
            assert str(first.pid).encode() in notes
            _stays(tmp_path, b"", rf"process {first.pid} \(`dvc repro`\)")
            path.write_bytes(notes)
        first.communicate()
        assert first.returncode == 0
    path.write_bytes(notes[:-30])
    assert "corrupted" in run(tmp_path, "dvc", "status").stderr
    assert rwlock.mend(tmp_path) == [path]
    assert "up to date" in ok(tmp_path, "dvc", "status")
