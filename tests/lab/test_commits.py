"""Committing the runs of a list, while other git commands and other lists work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refine.core.errors import UserError
from refine_lab.lists import commit
from refine_lab.runs.recorded import HOME
from repositories import ok
from support import PROJECT

NAME = "folder-quick-badnets-refine-default-s1"


@pytest.fixture
def recorded(preset: Path) -> Path:
    """The folder of a run that is recorded and not committed, while another git command holds the index."""
    folder = preset / HOME / NAME
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
    (preset / ".git/index.lock").touch()
    return folder


def test_a_commit_waits_for_another_git_command(preset: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "sleep", lambda _: (preset / ".git/index.lock").unlink())
    commit.commit_run(preset, recorded)
    assert ok(preset, "git", "log", "-1", "--format=%s").strip() == f"Record {NAME}"


def test_an_index_that_stays_locked_is_named_and_the_run_is_recorded(
    preset: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "sleep", lambda _: None)
    with pytest.raises(UserError, match=rf"the run is recorded in {HOME}/{NAME} and not committed: .*index\.lock"):
        commit.commit_run(preset, recorded)


def test_lists_commit_one_after_the_other(preset: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from refine_lab.lists.commit import commit_run\n"
        "for number in range(5):\n"
        "    folder = Path.cwd() / 'metrics/runs' / f'{sys.argv[1]}-{number}'\n"
        "    folder.mkdir(parents=True); (folder / 'run.json').touch()\n"
        "    commit_run(Path.cwd(), folder)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT / "lab")])}
    lists = [subprocess.Popen([sys.executable, "-c", script, name], cwd=preset, env=env) for name in ("a", "b")]
    assert [each.wait() for each in lists] == [0, 0]
    subjects = set(ok(preset, "git", "log", "--format=%s").splitlines())
    assert {f"Record {name}-{number}" for name in ("a", "b") for number in range(5)} <= subjects
    assert ok(preset, "git", "status", "--porcelain", "metrics") == ""
