"""A stage ends when the process that it works for is gone, whichever way it was started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gates import group
from refine.core import starter
from support import PROJECT, environment

STAGE = """
import os, signal
from pathlib import Path
from refine.core.stage import run

def work(machine):
    os.write(1, b"here\\n")
    signal.pause()

run("some-stage", work, Path("metrics/runtime"))
"""
GONE = "error: some-stage: the process that started this stage is gone; `dvc repro` runs it again"


@pytest.fixture
def stage(tmp_path: Path) -> str:
    """A command that waits for ever."""
    (tmp_path / "stage.py").write_text(STAGE, encoding="utf-8")
    return shlex.join([sys.executable, "stage.py"])


def _environment(**more: str) -> dict[str, str]:
    return environment(PYTHONPATH=str(PROJECT / "src"), **more)


def _ends(waiting: subprocess.Popen[str]) -> str:
    """Kills the process that was started, once its stage is there, and gives what the stage then says."""
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "here\n"
    waiting.kill()
    return waiting.communicate()[1]  # comes back when all are gone


def test_a_stage_ends_with_the_shell_that_started_it(tmp_path: Path, stage: str) -> None:
    with group(tmp_path, "sh", "-c", f"{stage}; true", env=_environment()) as waiting:
        assert _ends(waiting).startswith(GONE)


def test_a_stage_ends_though_nobody_can_read_what_it_says(tmp_path: Path, stage: str) -> None:
    code = f"import subprocess; subprocess.run({shlex.split(stage)!r}, stderr=subprocess.PIPE)"
    with group(tmp_path, sys.executable, "-c", code, env=_environment()) as waiting:
        assert _ends(waiting) == ""


def test_a_stage_ends_with_dvc_though_the_shell_between_them_lives(tmp_path: Path, stage: str) -> None:
    between = f"import subprocess; subprocess.run(['sh', '-c', {f'{stage}; true'!r}])"
    with group(tmp_path, sys.executable, "-c", between, env=_environment(DVC_STAGE="some-stage")) as waiting:
        assert _ends(waiting).startswith(GONE)


def test_a_stage_ends_with_the_list_that_started_dvc(tmp_path: Path, stage: str) -> None:
    inner = shlex.join(["sh", "-c", f"{stage}; true"])
    code = (
        "import os, subprocess; from refine.core import starter; "
        f"subprocess.run(['sh', '-c', {f'{inner}; true'!r}], env={{**os.environ, **starter.mark()}})"
    )
    with group(tmp_path, sys.executable, "-c", code, env=_environment()) as waiting:
        assert _ends(waiting).startswith(GONE)


def test_a_mark_names_a_process_and_not_a_later_one_of_its_number() -> None:
    (own,) = starter.mark().values()
    assert starter.alive(own)
    number, start = own.split()
    assert not starter.alive(f"{number} {float(start) - 500:.2f}")
    assert starter.alive("what is this")
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        named = f"{child.pid} {psutil.Process(child.pid).create_time():.2f}"
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not starter.alive(named)  # it has ended, and nobody has asked how
    assert not starter.alive(named)
