"""Settings of the machine, from the environment: none of them is a parameter of the experiment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from refine.core.errors import UserError
from refine.core.strict import Strict


def _whole(value: Any) -> Any:
    """Converts a string of digits; other strings are left as they are, and refused by the validation."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class Machine(Strict):
    """Settings of the machine; `machine` reads them once in a process, and everything else gets them as an argument.

    Attributes:
        device: `auto`, `cpu`, or a CUDA device such as `cuda` or `cuda:1`.
        threads: number of CPU threads for arithmetic; None leaves the library's choice.
        workers: number of processes that decode shards of a streamed data set; 0 decodes in the stage's own.
        memory: MiB that the training images may take on the device; a larger data set is streamed.
        processes: number of processes that train together.
        nodes: number of machines that train together.
        meeting: address of the first of them, `HOST:PORT`, where they find each other.
        restarts: how often processes that train together begin again from their last checkpoint when one is lost.
        cache: MiB that shards fetched from elsewhere may take on the disk; what was used longest ago is removed first.
        mirror: folder or URL that holds downloaded data sets; None means their official address.
        root: the project's folder, from DVC, also if a stage runs in a temporary copy of it.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:N")] = (
        "auto"
    )
    threads: Annotated[Whole | None, Field(ge=1, description="a whole number of CPU threads, 1 or more")] = None
    workers: Annotated[Whole, Field(ge=0, description="a whole number of decoding processes, 0 or more")] = 2
    memory: Annotated[Whole, Field(ge=1, description="a whole number of MiB for training images, 1 or more")] = 4096
    processes: Annotated[Whole, Field(ge=1, description="a whole number of training processes, 1 or more")] = 1
    nodes: Annotated[Whole, Field(ge=1, description="a whole number of machines that train together, 1 or more")] = 1
    meeting: Annotated[
        str | None, Field(pattern=r"^[^:/ ]+:[0-9]{1,5}$", description="HOST:PORT of the first of several machines")
    ] = None
    restarts: Annotated[Whole, Field(ge=0, description="a whole number of restarts, 0 or more")] = 0
    cache: Annotated[Whole, Field(ge=0, description="a whole number of MiB for fetched shards, 0 or more")] = 20_480
    mirror: Annotated[str | None, Field(description="a folder or URL that holds the data set's files")] = None
    root: Path = Path()


DEFAULTS = Machine()
"""The settings if no variable is set."""
PREFIX = "REFINE_"
NAMES = {f"{PREFIX}{name.upper()}": text for name, field in Machine.model_fields.items() if (text := field.description)}


def machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """Reads and checks the settings; an empty variable counts as not set.

    Raises:
        UserError: an unknown `REFINE_*` variable, or a value that its variable does not take.
    """
    for name in environment:
        if name.startswith(PREFIX) and name not in NAMES:
            nearest = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(NAMES)}"
            raise UserError(f"the environment variable {name} is not known; {hint}")
    given = {name.removeprefix(PREFIX).lower(): environment[name] for name in NAMES if environment.get(name)}
    try:
        return Machine.model_validate({**given, "root": Path(environment.get("DVC_ROOT", ""))})
    except ValidationError as error:
        name = f"{PREFIX}{error.errors()[0]['loc'][0]}".upper()
        raise UserError(f"{name}={environment[name]} is not understood; give {NAMES[name]}, or unset it") from None
