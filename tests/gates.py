"""Processes that a test stops where it wants them, so that nothing depends on how fast they are."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep

from forks import with_forks, without_forks

HOOK = Path(__file__).parent / "gate"
"""For PYTHONPATH."""


@contextmanager
def group(folder: Path, *command: str, env: dict[str, str], forks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process with all that it starts, as a group of its own whose output comes through pipes; killed at the end.

    With `forks`, stages and `dvc` are none of the group, and quicker.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=with_forks(env) if forks else without_forks(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _heed_interrupts() -> None:
    """What runs in the background ignores them, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def program(folder: Path, name: str) -> str:
    """A program of that name, which says that it is there, and waits."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("import signal\nprint('there', flush=True)\nsignal.pause()\n", encoding="utf-8")
    return str(path)


class Gate:
    """A place at which a process waits.

    Args:
        folder: takes the pipe.
        at: the process waits when it opens a file whose path matches this expression.
    """

    def __init__(self, folder: Path, at: str) -> None:
        self._pipe = folder / f"gate-{len(list(folder.glob('gate-*')))}"
        os.mkfifo(self._pipe)
        self.variables = {"GATE": str(self._pipe), "GATE_AT": at}
        """For the environment of the process, whose PYTHONPATH holds `HOOK`."""

    @contextmanager
    def reached(self, by: subprocess.Popen[str]) -> Iterator[None]:
        """Begins when the process waits at the gate, and lets it go on at the end.

        Args:
            by: the process, or the one that started it.
        """
        while (pipe := self._opened()) is None:
            assert by.poll() is None, f"it ended before the gate: {by.communicate()}"
            sleep(0.01)
        try:
            yield
        finally:
            os.close(pipe)

    def _opened(self) -> int | None:
        """The pipe, once somebody reads from it."""
        try:
            return os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None


def hook_into(project: Path) -> None:
    """Puts the hook where the stages of `dvc.yaml`, which set PYTHONPATH themselves, find it."""
    shutil.copy(HOOK / "sitecustomize.py", project / "src")


def released(lock: Path) -> None:
    """Waits until no process holds a lock."""
    with lock.open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
