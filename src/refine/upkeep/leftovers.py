"""What stopped processes left behind: where it lies, how large it is, and its removal.

That is: checkpoints of trainings that did not end, outputs that were only begun, and copies of the project in which
`dvc exp run --temp` was killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pandas as pd

from refine.core.errors import UserError
from refine.core.files import PARTIALS, remove
from refine.training.checkpoint import Checkpoints, hold
from refine.upkeep.copies import copies, forget, in_use
from refine.upkeep.processes import working

SCRATCH = ".scratch"
"""The stages' folder for checkpoints, ignored by git and DVC."""
_OWN = Path("data/own")
"""What lies there is the user's, whatever its name."""


@dataclass(frozen=True)
class Leftover:
    """Something that a stopped process left behind.

    Attributes:
        path: of the file or folder.
        used: whether a living process may be using it.
        remove: does so.
        epochs: that trainings can go on from, in words.
    """

    path: Path
    used: bool
    remove: Callable[[], None]
    epochs: str = "-"

    def row(self, project: Path) -> dict[str, object]:
        """For the table."""
        name = self.path.relative_to(project).as_posix()
        return {"left over": name, "epochs": self.epochs, "MiB": _bytes(self.path) / 2**20, "in use": self.used}


def leftovers(project: Path) -> Iterator[Leftover]:
    """All that there is; what a training could go on from is given while nobody can take hold of it."""
    yield from _checkpoints(project / SCRATCH)
    for path in sorted(_begun(project)):
        yield Leftover(path, any(process.stands_in(project) for process in working()), partial(remove, path))
    for path in copies(project):
        yield Leftover(path, in_use(path, project, working()), partial(forget, path, project))


def _checkpoints(home: Path) -> Iterator[Leftover]:
    for folder in sorted(path for path in home.glob("*") if path.is_dir()):
        left = Leftover(folder, False, partial(remove, folder), _epochs(folder))
        try:
            lock = hold(folder)
        except UserError:
            yield replace(left, used=True)
        except FileNotFoundError:  # it has just ended
            continue
        else:
            with lock:
                yield left


def _epochs(folder: Path) -> str:
    parts = [f"{part.name} {Checkpoints(part).epochs}" for part in sorted(folder.glob("*")) if part.is_dir()]
    return ", ".join([*parts, str(Checkpoints(folder).epochs)])


def _bytes(path: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):  # a process that is using it may remove files
        for each in (path, *path.rglob("*")):
            total += 0 if each.is_dir() else each.lstat().st_size
    return total


def _begun(project: Path) -> Iterator[Path]:
    """Outputs that were begun, in the project's visible folders."""
    for folder, folders, files in os.walk(project):
        place = Path(folder)
        yield from (place / name for name in (*folders, *files) if fnmatch(name, PARTIALS))
        folders[:] = [name for name in folders if not name.startswith(".") and place / name != project / _OWN]


def table(rows: list[dict[str, object]]) -> str:
    """What was found, for a person."""
    return pd.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format) if rows else "nothing is left over"
