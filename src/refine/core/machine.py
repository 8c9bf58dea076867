"""Settings of the machine, from the environment: none of them is a parameter of the experiment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from refine.core.errors import UserError

PREFIX = "REFINE_"


@dataclass(frozen=True)
class Machine:
    """What the person at this machine asked for.

    Attributes:
        device: `auto`, `cpu`, or a CUDA device such as `cuda` or `cuda:1`.
        threads: number of CPU threads for arithmetic; None leaves the library's choice.
        workers: number of processes that decode shards of a streamed data set; 0 decodes in the stage's own.
        memory: bytes that the training images may take on the device; a larger data set is streamed.
        processes: number of processes that train together.
        mirror: folder or URL that holds downloaded data sets; None means their official address.
    """

    device: str
    threads: int | None
    workers: int
    memory: int
    processes: int
    mirror: str | None


NAMES = {
    "REFINE_DEVICE": "auto, cpu, cuda or cuda:N",
    "REFINE_THREADS": "a whole number of CPU threads, 1 or more",
    "REFINE_WORKERS": "a whole number of decoding processes, 0 or more",
    "REFINE_MEMORY": "a whole number of MiB for training images, 1 or more",
    "REFINE_PROCESSES": "a whole number of training processes, 1 or more",
    "REFINE_MIRROR": "a folder or URL that holds the data set's files",
}


def machine(environment: Mapping[str, str] | None = None) -> Machine:
    """Reads and checks the settings.

    Raises:
        UserError: an unknown `REFINE_*` variable, or a value that its variable does not take.
    """
    environment = os.environ if environment is None else environment
    for name in environment:
        if name.startswith(PREFIX) and name not in NAMES:
            nearest = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(NAMES)}"
            raise UserError(f"the environment variable {name} is not known; {hint}")
    given = {name: environment[name] for name in NAMES if environment.get(name, "")}
    device = given.get("REFINE_DEVICE", "auto")
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and index.isdecimal())):
        raise _wrong("REFINE_DEVICE", device)
    return Machine(
        device=device,
        threads=_whole("REFINE_THREADS", given, 1),
        workers=_given_or(_whole("REFINE_WORKERS", given, 0), 2),
        memory=_given_or(_whole("REFINE_MEMORY", given, 1), 4096) * 2**20,
        processes=_given_or(_whole("REFINE_PROCESSES", given, 1), 1),
        mirror=given.get("REFINE_MIRROR"),
    )


def _whole(name: str, given: Mapping[str, str], smallest: int) -> int | None:
    if name not in given:
        return None
    if not given[name].isdecimal() or int(given[name]) < smallest:
        raise _wrong(name, given[name])
    return int(given[name])


def _given_or(value: int | None, default: int) -> int:
    return default if value is None else value


def _wrong(name: str, value: str) -> UserError:
    return UserError(f"{name}={value} is not understood; give {NAMES[name]}, or unset it")
