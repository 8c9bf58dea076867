"""The real `dvc` in a repository of its own."""

from __future__ import annotations

import re
from pathlib import Path

from support import run, tiny_project

ALL = ["download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"]


def finished_in(folder: Path) -> Path:
    """The tiny project after `dvc repro`, everything committed."""
    project = tiny_project(folder / "project")
    _begun(project)
    assert ran(project) == ALL
    _committed(project)
    return project


def repository(folder: Path) -> None:
    """Makes a folder a repository of git and DVC, everything in it committed."""
    _begun(folder)
    _committed(folder)


def _begun(folder: Path) -> None:
    for command in ("git init -q -b main", "git config user.email a@b.c", "git config user.name tester", "dvc init -q"):
        ok(folder, *command.split())


def _committed(folder: Path) -> None:
    ok(folder, "git", "add", "-A")
    ok(folder, "git", "commit", "-qm", "first")


def ok(project: Path, *command: str) -> str:
    """Runs a command that has to succeed, and gives what it printed."""
    result = run(project, *command)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def ran(project: Path, *arguments: str) -> list[str]:
    """Stages that `dvc repro` runs (not restores from its cache)."""
    out = ok(project, "dvc", "repro", *arguments)
    return re.findall(r"^Running stage '(.+)'", out, flags=re.MULTILINE)
