"""Put in front of PYTHONPATH, this records what a stage really uses: its modules, and the files it opens to read."""

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

opened: set[str] = set()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & os.O_ACCMODE == os.O_RDONLY:
            opened.add(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 (must not open anything itself)


def _write() -> None:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    used = {"opened": sorted(opened), "modules": sorted(file for file in files if file)}
    Path(os.environ["TRACE_TO"]).write_text(json.dumps(used), encoding="utf-8")


if "TRACE_TO" in os.environ:
    sys.addaudithook(_note)
    atexit.register(_write)
