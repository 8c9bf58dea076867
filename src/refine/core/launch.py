"""Several processes for one stage: on this machine by REFINE_PROCESSES, anywhere by torchrun.

torchrun does the same and more (several nodes), but adds its own reports and tracebacks to what a stage says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, NoReturn

from refine.core.machine import machine

MEETING = "PROCESSES_MEET_AT"
"""In the environment of the processes: where they find each other, as torch's `init_method`."""

_GRACE = 5.0


class Ended(Exception):  # noqa: N818 (it may have ended well)
    """The processes of a stage ended with this status, and have said and recorded all that there is.

    Where none of them could say why, the text of this does.
    """

    def __init__(self, status: int, told: str = "") -> None:
        super().__init__(told)
        self.status = status


def rank() -> int:
    """Number of this process among those that run the stage, 0 when it is alone."""
    return int(os.environ.get("RANK", "0"))


def together(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Does the work here, or has it done by several processes that run this very command.

    Raises:
        Ended: several processes did it, or one of them failed.
    """
    count, parent = machine().processes, os.getppid()
    if count == 1 or "RANK" in os.environ:
        return work()
    with TemporaryDirectory() as folder:
        return _launch(count, parent, Path(folder))


def _launch(count: int, parent: int, folder: Path) -> NoReturn:
    heard: list[IO[bytes]] = []
    started: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: _stop(started, 128 + signal.SIGTERM))
    try:
        for number in range(count):
            heard.append(TemporaryFile())  # noqa: SIM115 (lives as long as the process)
            command, quiet = [sys.executable, *sys.argv], heard[-1] if number else None
            environment = _environment(number, count, folder)
            started.append(subprocess.Popen(command, env=environment, stderr=quiet))  # noqa: S603
        status = _first_failure(started, parent)
    except KeyboardInterrupt:
        _interrupt(started)
        raise Ended(130) from None
    if status is None:  # at their end they would remove the checkpoints from which the stage can go on
        _kill(started)
        told = "the process that started this stage is gone; `dvc repro` runs it again, from its last checkpoint"
        raise Ended(129, told)
    if status and not _explained(started, heard):
        raise Ended(status, "a process of this stage was killed; if memory ran out, take fewer (REFINE_PROCESSES)")
    raise Ended(status)


def _environment(number: int, count: int, folder: Path) -> dict[str, str]:
    """Of one process, as torchrun would set it, but for a meeting in a file: a free port may be taken by others."""
    given = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": number, "LOCAL_RANK": number}
    threads = str(max(1, (os.cpu_count() or 1) // count))
    own = {name: str(value) for name, value in given.items()}
    return {"OMP_NUM_THREADS": threads, **os.environ, **own, MEETING: f"file://{folder / 'meeting'}"}


def _first_failure(started: list[subprocess.Popen[bytes]], parent: int) -> int | None:
    """Waits until one process fails, 0 when all of them end well.

    Returns:
        The status, or None where the process that started this one is gone, so that nobody would record what they make.
    """
    while os.getppid() == parent:
        states = [process.poll() for process in started]
        failed = [state for state in states if state]
        if failed:
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if all(state == 0 for state in states):
            return 0
        time.sleep(0.05)
    return None


def _interrupt(started: list[subprocess.Popen[bytes]]) -> None:
    """Waits for processes that a Ctrl-C reached too, and hands it on to those that it did not."""
    deadline = time.monotonic() + _GRACE
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    for process in started:
        process.wait()


def _explained(started: list[subprocess.Popen[bytes]], heard: list[IO[bytes]]) -> bool:
    """Ends the others, and says what the failed one said where the first process, which speaks for all, has not.

    Returns:
        Whether one of them said why.
    """
    try:
        started[0].wait(_GRACE)
    except subprocess.TimeoutExpired:
        started[0].kill()
    spoken = started[0].wait() > 0
    for process, file in list(zip(started, heard, strict=True))[1:]:
        process.kill()
        if process.wait() > 0 and not spoken:
            file.seek(0)
            sys.stderr.write(file.read().decode(errors="replace"))
            spoken = True
    return spoken


def _kill(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        process.kill()


def _stop(started: list[subprocess.Popen[bytes]], status: int) -> NoReturn:
    _kill(started)
    raise Ended(status)
