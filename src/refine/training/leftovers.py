"""Lists the checkpoints of trainings that did not end, and removes them on demand.

python -m refine.training.leftovers            lists them with their size
python -m refine.training.leftovers --remove   removes those that no process is using
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from refine.training.checkpoint import FOLDER, LOCK, Checkpoints


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks for."""
    parser = argparse.ArgumentParser(description="Checkpoints of trainings that did not end.")
    parser.add_argument("--remove", action="store_true", help="remove those that no process is using")
    remove = parser.parse_args(arguments).remove
    rows = []
    for folder in sorted(path for path in Path(FOLDER).glob("*") if path.is_dir()):
        with unused(folder) as free:
            for part in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
                name = str(part.relative_to(FOLDER))
                megabytes = sum(file.stat().st_size for file in part.iterdir() if file.is_file()) / 2**20
                rows.append({"run": name, "epochs": Checkpoints(part).epochs, "MiB": megabytes, "in use": not free})
            if remove and free:
                shutil.rmtree(folder)
    table = pd.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format) if rows else "nothing is left over"
    sys.stdout.write(table + "\n")


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether no process is training this run; if so, none can begin with it before the block ends."""
    path = folder / LOCK
    if not path.is_file():
        yield True
        return
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


if __name__ == "__main__":
    main()
