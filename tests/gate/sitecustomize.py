"""In front of PYTHONPATH, this has a process wait where it opens a certain file, until a test lets it go on."""

import os
import re
import sys
from pathlib import Path
from typing import Any


def _wait(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return
    if re.search(os.environ["GATE_AT"], os.fspath(arguments[0])):
        Path(os.environ["GATE"]).read_bytes()  # a named pipe: comes back when the test has opened and closed it


if "GATE" in os.environ:
    sys.addaudithook(_wait)
