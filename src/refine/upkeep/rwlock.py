"""Removes lock files of DVC that a kill or a full disk has left broken, unless a process may be using them.

DVC 3 writes `.dvc/tmp/rwlock`, where each of its processes notes which files it uses, in place: a process that dies
within that moment leaves it cut or empty, and from then on every command of DVC fails. While a stage runs, nothing
but a note in this file and the process itself tells that it does, so both are looked at.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from refine.core.errors import UserError
from refine.upkeep.processes import lived, working

FILES = (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")
"""Of DVC, and of its experiments."""

REMOVED = "was damaged, as by a kill or a full disk, and no process was using it: removed"
"""The message about such a file, after its path."""

_LOCK = ".dvc/tmp/lock"
_PID = re.compile(r'"pid": (\d+)\b')


def mend(project: Path) -> list[Path]:
    """Removes those that are broken.

    Args:
        project: its root.

    Returns:
        What was removed.

    Raises:
        UserError: one is broken, and a living process may be using it; it stays.
    """
    return [path for name in FILES if not _whole(path := project / name) and _removed(path, project)]


def _whole(path: Path) -> bool:
    """Whether DVC can read it; one that is not there is as good as an empty set of notes."""
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except FileNotFoundError:
        return True
    except ValueError:  # no UTF-8, or no JSON
        return False


def _removed(path: Path, project: Path) -> bool:
    """Removes a file that looks broken, unless it was only being written."""
    from dvc.config import Config  # takes a second, which only a broken file need cost
    from dvc.lock import LockError, make_lock

    hard = Config(str(project / ".dvc"))["core"].get("hardlink_lock", False)
    locks = [make_lock(str(file), str(path.parent), hardlink_lock=hard) for file in (project / _LOCK, f"{path}.lock")]
    try:
        with locks[0], locks[1]:  # those that DVC holds while it writes the file, in its order
            if _whole(path):
                return False
            user = _user(path, project)
            if user is None:
                path.unlink()
                return True
    except LockError:
        if _whole(path):
            return False
        user = "a command of DVC"
    raise UserError(
        f"{path} is damaged, and {user} may be using it; wait until it ends or stop it, and type the command again"
    )


def _user(path: Path, project: Path) -> str | None:
    """A process that may be using it: one of DVC that stands in the project, or one that a whole part of it names."""
    for process in working():
        if process.is_dvc and process.stands_in(project):
            return str(process)
    named = _PID.findall(path.read_text(encoding="utf-8", errors="replace"))
    written = path.stat().st_mtime
    return next((f"process {pid}, which it names," for pid in named if lived(int(pid), written)), None)
