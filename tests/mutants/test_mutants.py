"""Faults put into a copy of the project one at a time: each has to turn the test that guards against it red."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forks import with_forks
from mutants import MUTANTS, Mutant
from support import PROJECT, environment

Guards = Callable[..., bool]
"""Whether a test of a copy, its folder and then tests, failed; that it could not run at all is an error."""
COPIED = ("src", "stages", "tests", "presets", "data/own", "dvc.yaml", "params.yaml", "pyproject.toml", ".dvcignore")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project without its outputs."""
    for name in COPIED:
        source, target = PROJECT / name, tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def guards() -> Iterator[Guards]:
    """Runs tests in copies; a test then takes as long as it takes, and not as long as importing torch does."""
    command = (sys.executable, str(Path(__file__).with_name("guards.py")))
    environ = with_forks(environment(OMP_NUM_THREADS="1"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:

        def failed(copy: Path, *tests: str) -> bool:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{json.dumps([str(copy), *tests])}\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            assert status in (0, 1), (copy / "said.txt").read_text(encoding="utf-8")
            return status == 1

        yield failed


@pytest.mark.parametrize("folder", sorted({Path(mutant.guard).parent for mutant in MUTANTS}), ids=str)
def test_without_a_fault_every_guard_is_green(copy: Path, folder: Path, guards: Guards) -> None:
    here = {mutant.guard for mutant in MUTANTS if Path(mutant.guard).parent == folder}
    assert not guards(copy, *sorted(here))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_fault_turns_its_guard_red(copy: Path, mutant: Mutant, guards: Guards) -> None:
    for file, right, wrong in mutant.edits:
        text = (copy / file).read_text(encoding="utf-8")
        assert text.count(right) == 1, f"{file} no longer holds {right!r} once; adapt the mutant"
        (copy / file).write_text(text.replace(right, wrong), encoding="utf-8")
    assert guards(copy, mutant.guard)
