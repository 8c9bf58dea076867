"""What every stage does around its work: one sentence for errors, quiet logging, a record of the run."""

from __future__ import annotations

import logging
import platform
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from refine.core import launch, outside, starter
from refine.core.errors import UserError, one_line
from refine.core.files import sha256_of, write_json
from refine.core.launch import Work
from refine.core.machine import machine

_PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "webdataset": "webdataset",
    "safetensors": "safetensors",
    "PIL": "pillow",
}


def run(name: str, work: Work, records: Path, result: Path | None = None, parallel: bool = False) -> NoReturn:
    """Runs the work of the stage called `name` and ends the process.

    The work gets the settings of the machine. A `parallel` stage runs in REFINE_PROCESSES processes; under torchrun,
    it is one of the processes.

    Exit status 0 means that every output is whole. What the work returns (device, threads, speeds) goes with times
    and versions into NAME.json in the folder `records`, which nothing depends on; so do path and sha256 of `result`,
    an output by which this run is known from others whose outputs may take its place later. `earlier_seconds` among
    them, those of an interrupted run that was gone on from, count as this one's.
    """
    level = logging.WARNING if launch.rank() else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    sys.exit(_guarded(name, partial(launch.together, work) if parallel else work, records, result))


def _guarded(name: str, work: Work, records: Path, result: Path | None) -> int:
    started = time.time()
    starter.watch(partial(launch.abandoned, partial(_say, name)))
    try:
        entries = work(machine()) or {}
        if launch.rank() == 0:
            by = {} if result is None else {"result": {"path": result.as_posix(), "sha256": sha256_of(result)}}
            write_json(records / f"{name}.json", _record(name, started, {**entries, **by}))
    except UserError as error:
        return _fail(name, str(error))
    except launch.Ended as ended:
        return _say(name, str(ended), ended.status) if str(ended) else ended.status
    except KeyboardInterrupt as interrupt:
        sentence = str(interrupt) or "interrupted, nothing more was recorded; `dvc repro` runs this stage again"
        return _say(name, sentence, status=130)
    except Exception as error:
        explanation = outside.explained(error)
        if explanation is None:
            raise
        return _fail(name, explanation)
    return 0


def _fail(name: str, sentence: str) -> int:
    return 1 if launch.handed_up(sentence) else _say(name, sentence)


def _say(name: str, sentence: str, status: int = 1) -> int:
    with suppress(OSError):  # whoever would read it may be gone
        sys.stdout.flush()
        print(one_line(f"{name}: {sentence}"), file=sys.stderr, flush=True)  # noqa: T201
    return status


def _record(name: str, started: float, entries: dict[str, Any]) -> dict[str, Any]:
    earlier = entries.pop("earlier_seconds", 0.0)
    versions = {name: version(name) for module, name in _PACKAGES.items() if module in sys.modules}
    return {
        "stage": name,
        "started_unix": round(started, 1),
        "seconds": round(earlier + time.time() - started, 2),
        "python": platform.python_version(),
        "processor": platform.machine(),
        "versions": versions,
        **entries,
    }
