"""Lists of runs and git: what is committed when they are computed, and committing each run."""

from __future__ import annotations

import logging
from pathlib import Path
from time import sleep

from refine.core.errors import UserError
from refine_lab.lists import clones
from refine_lab.projects import CODE, git, preset_file

_TRIES = 50
_PAUSE = 0.2

log = logging.getLogger(__name__)


def compare_with_last_commit(preset: str, project: Path) -> None:
    """Warns of changes in this checkout that the clones, which have the last commit, do not see.

    Raises:
        UserError: the preset is not in the last commit as it is here, so that no run could be recorded.
    """
    file = preset_file(preset).as_posix()
    changed = git(project, "status", "--porcelain", "--", *CODE, "data/own").splitlines()
    paths = [line.split(maxsplit=1)[1] for line in changed]
    if any(file.startswith(path) for path in paths):
        raise UserError(f"{file} is not committed as it is here; commit it, so that its runs can be compared with it")
    if paths:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        log.warning(
            "warning: runs are computed from the last commit, without what is not committed here: %s%s",
            ", ".join(paths[:3]),
            more,
        )


def commit_run(project: Path, folder: Path) -> None:
    """Commits a recorded run, one list after the other; another git command that has the index is waited for.

    Raises:
        UserError: git has another reason, or the index stays locked.
    """
    place = str(folder.relative_to(project))
    with clones.lock(project, "index", wait=True):
        for tries_left in reversed(range(_TRIES)):
            try:
                git(project, "add", place)
                git(project, "commit", "--quiet", "-m", _subject(folder.name), "--", place)
            except UserError as error:
                if "index.lock" not in str(error) or not tries_left:
                    raise UserError(f"the run is recorded in {place} and not committed: {error}") from None
                sleep(_PAUSE)
            else:
                return


def _subject(name: str) -> str:
    return f"Record {name}"
