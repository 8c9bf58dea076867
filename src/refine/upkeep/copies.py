"""Copies of the project that `dvc exp run --temp` works in, and that a kill leaves behind.

Those of queued experiments are DVC's to remove (`dvc queue kill`): it looks into them as long as it knows of the task.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from refine.core.files import read_json
from refine.upkeep.processes import Process

_HOME = Path(".dvc/tmp/exps")
_COPIES = "standalone/tmp*"
_NOTES = ("run/*/*.run", "standalone/run/*/*.run")


def copies(project: Path) -> list[Path]:
    """All of them, those in use included."""
    return sorted(path for path in (project / _HOME).glob(_COPIES) if path.is_dir())


def in_use(copy: Path, project: Path, working: Iterable[Process]) -> bool:
    """Whether a process works in a copy, or one of DVC that stands in the project may be making or emptying it."""
    return any(process.stands_in(copy) or (process.makes_copies and process.stands_in(project)) for process in working)


def forget(copy: Path, project: Path) -> None:
    """Removes a copy, and the notes for which `dvc exp show` calls its experiment running.

    Raises:
        UserError: a note of DVC cannot be read.
    """
    for pattern in _NOTES:
        for note in (project / _HOME).glob(pattern):
            info = read_json(note, f"remove {note.parent}")
            if Path(info.get("root_dir", "")).resolve() == copy.resolve():
                shutil.rmtree(note.parent)
    shutil.rmtree(copy)
