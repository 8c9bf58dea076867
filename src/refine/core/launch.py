"""Several processes for one stage: on this machine by REFINE_PROCESSES, on several by REFINE_NODES, or by torchrun.

Both use torch's elastic launcher. torchrun also prints reports and tracebacks of its own; here a process that fails
passes its error message to the launcher, which prints it as one sentence.
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
from threading import Event
from typing import TYPE_CHECKING, Any

from refine.core import starter
from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.core.outside import first_line

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

log = logging.getLogger(__name__)

_RUN = "processes-of-a-stage"
"""Run id, by which a process knows that it was started by this module and not by torchrun."""
_KILLED = "a process of this stage was killed; if memory ran out, take fewer (REFINE_PROCESSES)"

_AGAIN = "look at what the others say, and start the stage on all of them again"
_PATIENCE = 86_400
"""Seconds that a machine waits for the others, which may still be at an earlier stage."""

ABANDONED = 129
"""Exit status of a stage whose starter is gone."""

_launching = Event()
"""Whether this process has started the others."""

Work = Callable[[Machine], dict[str, Any] | None]
"""The work of a stage: takes the settings of the machine, returns entries for the runtime record."""


class Ended(Exception):  # noqa: N818 (it may have ended well)
    """The processes of a stage ended with this exit status, and the runtime record is written.

    The message is what still has to be printed; it may be empty.
    """

    def __init__(self, status: int, sentence: str = "") -> None:
        super().__init__(sentence)
        self.status = status


def rank() -> int:
    """Rank of this process among those of the stage; 0 if there is only one."""
    return int(os.environ.get("RANK", "0"))


def together(work: Work, machine: Machine) -> dict[str, Any] | None:
    """Does the work in this process, or starts several processes that run the same command.

    Raises:
        Ended: several processes did the work, or one of them failed.
        UserError: several machines were not told where to meet.
    """
    if (machine.processes == 1 and machine.nodes == 1) or "RANK" in os.environ:
        return work(machine)
    if machine.nodes > 1 and machine.meeting is None:
        raise UserError("REFINE_NODES needs REFINE_MEETING, HOST:PORT of the first machine, on each of them")
    with TemporaryDirectory() as folder:
        _launch(machine, Path(folder))
    raise Ended(0)


def handed_up(sentence: str) -> bool:
    """Passes an error message to the launcher; False if there is no launcher that prints it."""
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


def _launch(machine: Machine, folder: Path) -> None:
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count, nodes = machine.processes, machine.nodes
    if nodes > 1:
        log.info("wait at %s for %d machines", machine.meeting, nodes)
    logging.disable(logging.CRITICAL)  # of the launcher: rank 0 logs the progress
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    if machine.restarts or nodes > 1:
        # One store for all attempts still holds the addresses of the last one, and who comes first would call those.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=count,
        max_restarts=machine.restarts,
        run_id=_RUN,
        rdzv_backend="c10d",
        rdzv_endpoint=machine.meeting or "127.0.0.1:0",
        rdzv_configs={"join_timeout": _PATIENCE, "read_timeout": _PATIENCE} if nodes > 1 else {},
        local_addr="127.0.0.1" if nodes == 1 else None,
        logs_specs=DefaultLogsSpecs(str(folder), redirects=dict.fromkeys(range(1, count), Std.ERR)),
    )
    _launching.set()
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except ChildFailedError as failed:
        raise _failure(failed, folder) from None
    except (RendezvousError, DistError) as error:
        told = f"the machines of this training did not find each other, or lost each other ({first_line(error)})"
        raise Ended(1, f"{told}; {_AGAIN}") from None
    except (SignalException, KeyboardInterrupt) as stopped:
        if starter.gone():
            raise Ended(ABANDONED, starter.SENTENCE) from None
        raise Ended(128 + int(getattr(stopped, "sigval", signal.SIGINT))) from None


def abandoned(say: Callable[[str], int]) -> None:
    """Ends this process, whose starter is gone, since DVC would not record the outputs.

    If it ran to its end, it would remove the checkpoints from which the stage can be resumed.

    Args:
        say: prints a sentence.
    """
    if _started_here():
        os.kill(os.getpid(), signal.SIGKILL)
    if _launching.is_set():
        os.kill(os.getpid(), signal.SIGTERM)  # the launcher ends its processes, and says why
        return
    say(starter.SENTENCE)
    os._exit(ABANDONED)


def _failure(failed: ChildFailedError, folder: Path) -> Ended:
    """Exit status and error message of the first process that failed."""
    _, failure = failed.get_first_failure()
    if failure.exitcode < 0:
        return Ended(128 - failure.exitcode, _KILLED)
    if Path(failure.error_file).is_file():
        return Ended(failure.exitcode, failure.message)
    for log in folder.glob(f"*/*/{failure.local_rank}/stderr.log"):  # the traceback of a bug
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
    return Ended(failure.exitcode)
