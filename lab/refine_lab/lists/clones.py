"""Clones of the project's last commit in `.rows`, where runs are computed while the checkout stays as it is.

.rows/1, 2, ...    each used by one process at a time, for one run after the other; they share the project's cache
.rows/RUN          of a run that must not find anything in a cache; it goes when the run is recorded
.rows/locks        a file for each clone, each run and the project's index; a process that holds one has locked it
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configobj import ConfigObj
from dvc.exceptions import CheckoutError
from dvc.repo import Repo

from refine.core.files import new_folder, remove
from refine.core.outside import first_line
from refine.upkeep.leftovers import SCRATCH
from refine_lab.projects import OTHERS, git

HOME = Path(".rows")
DOWNLOADS = "data/.cache"
"""The stages' folder for what they fetched, ignored by git and DVC."""
_DECIDE = ("dvc.yaml", "stages", "src", "data/own")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clone:
    """A clone that this process holds.

    Attributes:
        folder: its root.
        lock: descriptor of the lock; a command that inherits it keeps the clone locked when this process is killed.
        code: stands for what computes its runs, see `code_of`.
    """

    folder: Path
    lock: int
    code: str


@contextmanager
def lock(project: Path, name: str, wait: bool = False) -> Iterator[int | None]:
    """Holds the lock of that name; descriptor of its file, or None where another process holds it."""
    path = project / HOME / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield file.fileno()


@contextmanager
def shared(project: Path) -> Iterator[Clone]:
    """The first clone that no other process uses, of the project's last commit.

    It shares the project's cache and its checkpoints, so that an interrupted training goes on whichever clone it began
    in.
    """
    with _free(project) as (folder, held):
        _prepare(project, folder, cache_of(project))
        _share(project, folder)
        yield Clone(folder, held, code_of(folder))


@contextmanager
def elsewhere(home: Path, bundle: Path, cache: Path, own_data: Path | None = None) -> Iterator[Clone]:
    """The first clone that no other process uses, of a commit that came from another machine.

    Args:
        home: folder for clones and for the checkpoints that they share.
        bundle: of git, whose HEAD is the commit.
        cache: of DVC.
        own_data: cache that has the data that the commit tracks, where that is another one.
    """
    with _free(home) as (folder, held):
        _prepare(bundle, folder, cache, own_data)
        _share(home, folder)
        yield Clone(folder, held, code_of(folder))


@contextmanager
def _free(home: Path) -> Iterator[tuple[Path, int]]:
    """The folder of the first clone that no other process uses, and its lock."""
    for number in itertools.count(1):
        with lock(home, str(number)) as held:
            if held is not None:
                yield home / HOME / str(number), held
                return


@contextmanager
def alone(project: Path, run: str, held: int) -> Iterator[Clone]:
    """A clone for one run, with a cache of its own; it stays where the block ends with an error.

    Args:
        project: root of the project.
        run: its name.
        held: the lock of that name, which the caller holds.
    """
    folder = project / HOME / run
    _prepare(project, folder, folder / ".dvc/cache", cache_of(project))
    yield Clone(folder, held, code_of(folder))
    shutil.rmtree(folder)


def cache_of(project: Path) -> Path:
    """The cache of a project."""
    with Repo(str(project)) as repo:
        return Path(repo.cache.local_cache_dir)


def code_of(project: Path) -> str:
    """Stands for all of a commit that decides on what its stages compute; recording runs does not change it."""
    return git(project, "ls-tree", "HEAD", *_DECIDE)


def _prepare(source: Path, folder: Path, cache: Path, own_data: Path | None = None) -> None:
    """Brings a clone to the last commit of a checkout, or to that of a bundle, with the data that DVC tracks in it.

    What git ignores stays as an earlier run left it.

    Args:
        source: the checkout or bundle.
        folder: of the clone.
        cache: that it is to use.
        own_data: cache that has the data, where that is another one.
    """
    if not folder.is_dir():
        with new_folder(folder) as part:
            git(part, "clone", "--quiet", str(source.resolve()), str(part.resolve()))
    for stale in (".git/index.lock", ".dvc/tmp/rwlock"):  # of a killed process: nobody else works here
        (folder / stale).unlink(missing_ok=True)
    for other in (folder / OTHERS).glob("*/"):  # the stage poison-dataset depends on all that is there
        shutil.rmtree(other)
    git(folder, "fetch", "--quiet", str(source.resolve()), "HEAD")
    git(folder, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    local = ConfigObj(str(source / ".dvc/config.local"))  # of a bundle, there is none
    _use(folder, local, own_data or cache)
    _bring_data(folder)
    _use(folder, local, cache)


def _use(folder: Path, local: ConfigObj, cache: Path) -> None:
    """Has a clone use a cache, and what else its project is set to on this machine, such as credentials."""
    local.filename = str(folder / ".dvc/config.local")
    local["cache"] = {**local.get("cache", {}), "dir": str(cache.resolve())}
    local.write()


def _bring_data(folder: Path) -> None:
    """Data that the commit tracks by DVC, such as own images: from the cache, or else from the remote.

    Where neither has it, the log says so: only some runs may need it.
    """
    tracked = git(folder, "ls-files", "-z", "*.dvc").split("\0")
    targets = [str(folder / name) for name in tracked if name]
    if not targets:
        return
    with Repo(str(folder)) as repo:
        try:
            repo.checkout(targets, force=True)
        except CheckoutError:
            try:
                repo.pull(targets, force=True)
            except Exception as error:  # noqa: BLE001 (each library behind a remote has errors of its own)
                log.warning(
                    "warning: data that %s tracks is neither in DVC's cache nor can it be pulled (%s)",
                    tracked[0],
                    first_line(error),
                )


def _share(project: Path, folder: Path) -> None:
    """Has a clone use the checkpoints and the downloads of a project."""
    for name in (SCRATCH, DOWNLOADS):
        (project / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).is_symlink():
            remove(folder / name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((project / name).resolve())
