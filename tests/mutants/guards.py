"""Runs tests of copies of the project, each in a fork of one process that has imported what they all need.

    python guards.py < lines

A line is a JSON list: the folder of the copy, then tests. The answer is a line with the exit status of pytest; what was
said is in `said.txt` of the copy. Nothing of the project is imported here, so that each fork imports that of the copy.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

NEEDED = (
    "matplotlib.figure",
    "pandas",
    "PIL.Image",
    "pydantic",
    "safetensors.torch",
    "scipy.optimize",
    "sklearn.manifold",
    "torch.fx.experimental.optimization",
    "torchvision",
    "webdataset",
    "yaml",
)
"""What takes most of a short test's time to import; done in `main`, as processes that tests start import this file."""


def _run(folder: Path, tests: list[str]) -> int:
    """In a fork: the exit status of pytest."""
    nothing, said = os.open(os.devnull, os.O_RDONLY), os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    os.chdir(folder)
    sys.path.insert(0, str(folder / "src"))
    os.environ["PYTHONPATH"] = str(folder / "src")  # for what a test starts
    return pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests])


def main() -> None:
    """Answers each line."""
    for name in NEEDED:
        import_module(name)
    for line in sys.stdin:
        folder, *tests = json.loads(line)
        child = os.fork()
        if child == 0:
            status = _run(Path(folder), tests)
            sys.stdout.flush()
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
