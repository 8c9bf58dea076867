"""Several processes for one stage: on this machine by REFINE_PROCESSES, anywhere by torchrun.

Both are torch's elastic launcher. torchrun adds its own reports and tracebacks to what a stage says; here the
processes hand up what they have to say, and the one that started them says it, in one sentence.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from refine.core.machine import Machine

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_RUN = "processes-of-a-stage"
"""The name of the run, by which a process knows that it was started here and not by torchrun."""
_GONE = "the process that started this stage is gone; `dvc repro` runs it again, from its last checkpoint"
_KILLED = "a process of this stage was killed; if memory ran out, take fewer (REFINE_PROCESSES)"

Work = Callable[[Machine], dict[str, Any] | None]
"""What a stage does with the settings of the machine, and what it tells for its record."""


class Ended(Exception):  # noqa: N818 (it may have ended well)
    """The processes of a stage ended with this status, and have recorded all that there is.

    The text is what is still to be said, if anything is.
    """

    def __init__(self, status: int, sentence: str = "") -> None:
        super().__init__(sentence)
        self.status = status


def rank() -> int:
    """Number of this process among those that run the stage, 0 when it is alone."""
    return int(os.environ.get("RANK", "0"))


def together(work: Work, machine: Machine) -> dict[str, Any] | None:
    """Does the work here, or has it done by several processes that run this very command.

    Raises:
        Ended: several processes did it, or one of them failed.
    """
    parent = os.getppid()
    if _started_here():
        Thread(target=_orphaned, args=(parent, signal.SIGKILL), daemon=True).start()
    if machine.processes == 1 or "RANK" in os.environ:
        return work(machine)
    with TemporaryDirectory() as folder:
        _launch(machine.processes, parent, Path(folder))
    raise Ended(0)


def handed_up(sentence: str) -> bool:
    """Hands up why this process fails, for the one that started it to say; False where that would not hear it."""
    if not _started_here():
        return False
    content = json.dumps({"message": sentence, "timestamp": int(time.time())})
    try:
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(content, encoding="utf-8")
    except OSError:  # such as a full disk
        return False
    return True


def _started_here() -> bool:
    return os.environ.get("TORCHELASTIC_RUN_ID") == _RUN


def _launch(count: int, parent: int, folder: Path) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the first process tells how the work goes, and torch's reports are not wanted
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        max_restarts=0,
        run_id=_RUN,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        logs_specs=DefaultLogsSpecs(str(folder), redirects=dict.fromkeys(range(1, count), Std.ERR)),
    )
    Thread(target=_orphaned, args=(parent, signal.SIGTERM), daemon=True).start()
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except ChildFailedError as failed:
        raise _failure(failed, folder) from None
    except (SignalException, KeyboardInterrupt) as stopped:
        if os.getppid() != parent:
            raise Ended(129, _GONE) from None
        raise Ended(128 + int(getattr(stopped, "sigval", signal.SIGINT))) from None


def _orphaned(parent: int, number: int) -> None:
    """Sends this process a signal once its parent is gone: nobody would record what it makes.

    At its end it would remove the checkpoints from which the stage can go on.
    """
    while os.getppid() == parent:
        time.sleep(0.1)
    os.kill(os.getpid(), number)


def _failure(failed: ChildFailedError, folder: Path) -> Ended:
    """How the first process that failed ended, and what is still to be said of it."""
    number, failure = failed.get_first_failure()
    if failure.exitcode < 0:
        return Ended(128 - failure.exitcode, _KILLED)
    if Path(failure.error_file).is_file():
        return Ended(failure.exitcode, failure.message)
    for unheard in folder.glob(f"*/*/{number}/stderr.log"):  # a fault of the code, with its traceback
        sys.stderr.write(unheard.read_text(encoding="utf-8", errors="replace"))
    return Ended(failure.exitcode)
