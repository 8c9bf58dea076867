"""Faults put into a copy of the project one at a time: each has to turn the test that guards against it red."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mutants import MUTANTS, Mutant
from support import PROJECT, environment, run

COPIED = (
    "src",
    "stages",
    "tests",
    "presets",
    "data/own",
    "data/split",
    "data/other",
    "dvc.yaml",
    "params.yaml",
    "pyproject.toml",
    ".dvcignore",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project without its outputs; byte code comes along, which what is edited then no longer matches."""
    for name in COPIED:
        source, target = PROJECT / name, tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info"))
        else:
            shutil.copy(source, target)
    return tmp_path / "copy"


def _red(copy: Path, *guards: str) -> bool:
    """Whether one of these tests of a copy fails; that it cannot run at all is an error."""
    environ = environment(PYTHONPATH=str(copy / "src"), OMP_NUM_THREADS="1")
    result = run(copy, "python", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *guards, env=environ)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return result.returncode == 1


@pytest.mark.parametrize("folder", sorted({Path(mutant.guard).parent for mutant in MUTANTS}), ids=str)
def test_without_a_fault_every_guard_is_green(copy: Path, folder: Path) -> None:
    here = {mutant.guard for mutant in MUTANTS if Path(mutant.guard).parent == folder}
    assert not _red(copy, *sorted(here))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_fault_turns_its_guard_red(copy: Path, mutant: Mutant) -> None:
    for file, right, wrong in mutant.edits:
        text = (copy / file).read_text(encoding="utf-8")
        assert text.count(right) == 1, f"{file} no longer holds {right!r} once; adapt the mutant"
        (copy / file).write_text(text.replace(right, wrong), encoding="utf-8")
    assert _red(copy, mutant.guard)
