"""Which processes work in a project: DVC, its stages, and commands of this package."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from refine.core.errors import UserError

_DVC = re.compile(r"(^|/)dvc(/__main__\.py)?$")
_OURS = re.compile(r"(^|/)stages/\w+\.py$|(^|/)refine$|^(refine|benchmarks)\.")
_PROGRAM = 5
"""Words of a command line among which its program stands, after Python's options."""

_CLOCK = 1.0
"""Seconds by which the time of a process's start may be off."""


def root(folder: Path) -> Path | None:
    """The DVC project that a folder lies in: the nearest one above it, or None where there is none."""
    return next((above for above in (folder, *folder.parents) if (above / ".dvc").is_dir()), None)


def here() -> Path:
    """The DVC project that the working folder lies in.

    Raises:
        UserError: it lies in none.
    """
    project = root(Path.cwd())
    if project is None:
        raise UserError(f"{Path.cwd()} lies in no DVC project; go to the checkout's folder")
    return project


@dataclass(frozen=True)
class Process:
    """A living process.

    Attributes:
        pid: its number.
        words: of its command line.
        project: that it stands in; None where it stands in none.
        seen: whether this user may know where it stands.
    """

    pid: int
    words: tuple[str, ...]
    project: Path | None
    seen: bool = True

    def __str__(self) -> str:
        program, *rest = self.words[1:] if Path(self.words[0]).name.startswith("python") else self.words
        return f"process {self.pid} (`{' '.join([Path(program).name, *rest])[:80]}`)"

    def stands_in(self, project: Path) -> bool:
        """Whether it stands in a project, as far as this user can tell."""
        return self.project == project.resolve() or not self.seen

    @property
    def is_dvc(self) -> bool:
        """Whether it is a command of DVC; those that DVC leaves in the background to look for news are not meant."""
        return self._runs(_DVC) and "daemon" not in self.words

    @property
    def makes_copies(self) -> bool:
        """Whether it is a command of DVC that makes, fills and empties copies of the project."""
        return self.is_dvc and not {"exp", "experiments", "queue"}.isdisjoint(self.words)

    @property
    def works(self) -> bool:
        """Whether it is a command of DVC, a stage, or a command of this package."""
        return self.is_dvc or self._runs(_OURS)

    def _runs(self, program: re.Pattern[str]) -> bool:
        started = self.words and Path(self.words[0]).name.startswith(("python", "dvc"))
        return bool(started) and any(program.search(word) for word in self.words[:_PROGRAM])


def working() -> list[Process]:
    """All living processes that work in some project, this one excepted."""
    found = []
    for entry in psutil.process_iter(["pid", "cmdline", "cwd"]):
        pid, words, folder = (entry.info[name] for name in ("pid", "cmdline", "cwd"))
        process = Process(pid, tuple(words or ()), root(Path(folder)) if folder else None, seen=bool(folder))
        if process.works and pid != os.getpid():
            found.append(process)
    return found


def lived(pid: int, when: float) -> bool:
    """Whether a living process of this number may have begun before a moment, in seconds since 1970.

    Numbers are given again: a younger process is another one than the one that was meant then.
    """
    try:
        return bool(psutil.Process(pid).create_time() < when + _CLOCK)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
