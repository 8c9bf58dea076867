"""Computing a list of runs on a cluster, by Ray: the same list, the same clones, the same figures.

Rows with the same data, attacked classifier or split wait for one task that makes it (`submitted`); where nodes share
no file system, they then run on the node that has it. A node needs the project installed, and nothing else of it: the
commit comes as a bundle of git, and each finished run goes home as bytes. Only the process that was given the list
writes into the project.

A task whose worker or node is lost is tried again, in another clone if need be (`nodes`).
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from refine.core.errors import UserError
from refine_lab.cluster.connection import Cluster, refuse_too_much, started
from refine_lab.cluster.nodes import Place
from refine_lab.cluster.parcels import Parcel, take_models, unpacked
from refine_lab.cluster.submitted import Submitted
from refine_lab.lists import clones
from refine_lab.lists.clones import cache_of
from refine_lab.lists.commit import commit_run
from refine_lab.lists.compute import Failed, chosen
from refine_lab.lists.rows import Rows
from refine_lab.projects import git
from refine_lab.runs.name import Name
from refine_lab.runs.recorded import HOME

log = logging.getLogger(__name__)


def compute(
    rows: Rows, wanted: Collection[str], commit: bool, project: Path, cluster: Cluster, keep_going: bool = True
) -> None:
    """Computes and records those runs that are not recorded yet, as `compute.compute` does.

    Args:
        rows: the list.
        wanted: attacks; all where it is empty.
        commit: each run when it ends.
        project: root of this project.
        cluster: how; the one at RAY_ADDRESS, or one of this machine's processors where that is not set.
        keep_going: compute the others where one fails.

    Raises:
        UserError: Ray is not installed, or cannot be reached; or as `compute.compute`.
    """
    failed = Failed(len(rows.rows))
    todo = chosen(rows, wanted, project)
    with ExitStack() as held:
        free = [(row, name, params) for row, name, params in todo if _taken(project, name, held)]
        if free:
            ray = started()
            try:
                refuse_too_much(ray, cluster)
                wants = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus}
                place, bundle = _place(project, cluster), _bundle(project)
                tasks = Submitted(ray, rows.preset, project, bundle, place, wants, cluster.apart)
                for name, result in tasks.ended(free):
                    try:
                        folder = _home(project, name, result)
                        if commit:
                            commit_run(project, folder)
                    except (UserError, OSError, tarfile.TarError) as error:
                        failed.note(name, error)
                        if not keep_going:
                            break
            finally:
                ray.shutdown()
    failed.tell()


def _taken(project: Path, name: Name, held: ExitStack) -> bool:
    """Whether this process is to compute a run; it then holds the run's lock."""
    if held.enter_context(clones.lock(project, str(name))) is None:
        log.info("%s is passed over: another process is computing it", name)
        return False
    return not (project / HOME / str(name)).is_dir()


def _place(project: Path, cluster: Cluster) -> Place:
    settings = {name: value for name, value in os.environ.items() if name.startswith("REFINE_")}
    asked = {"REFINE_THREADS": str(cluster.cpus), "OMP_NUM_THREADS": str(cluster.cpus)}
    if not cluster.gpus:
        asked["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides GPUs from those alone that ask for some
    ships = cluster.home is not None
    home, cache = (cluster.home, cluster.home / "cache") if cluster.home else (project.resolve(), cache_of(project))
    return Place(home, cache, ships, git(project, "rev-parse", "HEAD"), {**settings, **asked})


def _bundle(project: Path) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "commit.bundle"
        git(project, "bundle", "create", "--quiet", str(file), "HEAD")
        return file.read_bytes()


def _home(project: Path, name: Name, result: Parcel | Exception) -> Path:
    """Writes a run that came as bytes into the project.

    Raises:
        Exception: the reason that came instead.
    """
    if isinstance(result, Exception):
        raise result
    take_models(result.models, cache_of(project))
    (folder,) = unpacked(result.runs, project / HOME, only=str(name))
    return folder
