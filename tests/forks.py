"""Tiny stages, and `dvc`, in a fraction of their time: forks of a process that has imported torch and DVC.

They are real processes with their own memory, files and exit status (`tests/forked`). What a test sends signals to is
not started in this way.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from time import sleep

_FORKED = Path(__file__).parent / "forked"


def share() -> None:
    """Lets the processes that this one starts have the same server."""
    os.environ["TEST_FORKS"] = str(_place() / "socket")


@cache
def _place() -> Path:
    """A folder with `python` and `dvc` for the front of PATH, and the socket of the server."""
    if "TEST_FORKS" in os.environ:
        return Path(os.environ["TEST_FORKS"]).parent
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    place = Path(folder.name)
    code = (_FORKED / "front.py").read_text(encoding="utf-8")
    for name in ("python", "dvc"):
        (place / name).write_text(f"#!{sys.executable} -IS\n{code}", encoding="utf-8")
        (place / name).chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(_FORKED / "server.py"), str(place / "socket"), str(os.getpid())]
    server = subprocess.Popen(command, env=environment)
    while not (place / "socket").exists():
        assert server.poll() is None, "the server of forks ended"
        sleep(0.01)

    def end() -> None:
        server.kill()
        server.wait()
        folder.cleanup()

    atexit.register(end)
    return place


def with_forks(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which stages and `dvc` are forks."""
    place = _place()
    path = os.pathsep.join([str(place), environment["PATH"]])
    return {**environment, "PATH": path, "TEST_FORKS": str(place / "socket")}


def without_forks(environment: dict[str, str]) -> dict[str, str]:
    """The same without."""
    return {name: value for name, value in environment.items() if name != "TEST_FORKS"} | {
        "PATH": environment["PATH"].removeprefix(f"{_place()}{os.pathsep}")
    }
