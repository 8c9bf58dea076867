"""Tiny stages in a fraction of their time: their processes are forks of one that has imported torch (`tests/forked`).

They are real processes with their own memory, files and exit status, started by the real `dvc`. What concerns signals,
hooks or several processes that train together is not started in this way.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_FORKED = Path(__file__).parent / "forked"


@cache
def _place() -> Path:
    """A folder with a `python` for the front of PATH and, once the server listens, its socket."""
    if "TEST_FORKS" in os.environ:  # tests that another test runs
        return Path(os.environ["TEST_FORKS"]).parent
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    place = Path(folder.name)
    front = place / "python"
    code = (_FORKED / "front.py").read_text(encoding="utf-8")
    front.write_text(f"#!{sys.executable} -IS\n{code}", encoding="utf-8")
    front.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(_FORKED / "server.py"), str(place / "socket"), str(os.getpid())]
    server = subprocess.Popen(command, env=environment)

    def end() -> None:
        server.kill()
        server.wait()
        folder.cleanup()

    atexit.register(end)
    return place


def with_forks(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which `python stages/...` is a fork; until the server listens it is a process as ever."""
    place = _place()
    path = os.pathsep.join([str(place), environment["PATH"]])
    return {**environment, "PATH": path, "TEST_FORKS": str(place / "socket")}


def without_forks(environment: dict[str, str]) -> dict[str, str]:
    """The same without."""
    return {name: value for name, value in environment.items() if name != "TEST_FORKS"} | {
        "PATH": environment["PATH"].removeprefix(f"{_place()}{os.pathsep}")
    }
