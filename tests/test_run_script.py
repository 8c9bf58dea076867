"""What `./run` does, in order, with programs in the place of `refine` and Python that note how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import PROJECT

PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then echo "$VIRTUAL_ENV"; exit; fi
echo "python $*" >> called
case "$*" in *"${FAILS:-nothing}"*) exit 1 ;; esac
"""
REFINE = PYTHON.replace("python $*", "refine $*")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which everything is installed."""
    for name in ("run", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, tmp_path)
    bin_ = tmp_path / "environment/bin"
    bin_.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("refine", REFINE)):
        (bin_ / name).write_text(text, encoding="utf-8")
        (bin_ / name).chmod(0o755)
    wanted = "".join((tmp_path / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt"))
    (tmp_path / "environment/refine-main.stamp").write_text(f"{wanted}{tmp_path}\n", encoding="utf-8")
    (tmp_path / ".dvc/plots").mkdir(parents=True)
    (tmp_path / ".dvc/plots/page.html").touch()
    return tmp_path


def _called(checkout: Path, *arguments: str, fails: str = "nothing") -> tuple[int, list[str]]:
    """Exit status of `./run`, and what it called."""
    environment = {"PATH": f"{checkout}/environment/bin{os.pathsep}{os.environ['PATH']}", "FAILS": fails}
    environment["VIRTUAL_ENV"] = str(checkout / "environment")
    ended = subprocess.run(["./run", *arguments], cwd=checkout, env=environment, check=False)
    return ended.returncode, (checkout / "called").read_text(encoding="utf-8").splitlines()


def test_without_a_word_it_runs_the_experiment_and_tells_what_differs(checkout: Path) -> None:
    assert _called(checkout) == (0, ["refine dvc repro", "refine difference"])


def test_nothing_is_compared_where_the_experiment_did_not_end_well(checkout: Path) -> None:
    assert _called(checkout, fails="repro") == (1, ["refine dvc repro"])


def test_a_command_of_dvc_goes_through_the_command_that_looks_before(checkout: Path) -> None:
    words = ("dvc", "exp", "run", "-S", "poison_dataset.attack.name=wanet and more")
    assert _called(checkout, *words) == (0, [f"refine {' '.join(words)}"])


def test_another_command_is_run_as_it_is(checkout: Path) -> None:
    assert _called(checkout, "python", "-m", "anything") == (0, ["python -m anything"])
