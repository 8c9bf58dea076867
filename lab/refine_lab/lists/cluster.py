"""Computing a list of runs on a cluster, by Ray: the same list, the same clones, the same figures.

Rows with the same attacked classifier wait for one task that makes it, so that nothing is computed twice; where nodes
share no file system, they then run on the node that has it. A node needs the project installed, and nothing else of
it: the commit comes as a bundle of git, and each finished run goes home as bytes. Only the process that was given the
list writes into the project.

A task whose worker or node is lost is tried again, in another clone if need be (`lists.nodes`).
"""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dvc.repo import Repo

from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.outside import explained, first_line
from refine_lab.lists import clones
from refine_lab.lists.commit import commit_run
from refine_lab.lists.compute import Failed, chosen
from refine_lab.lists.connection import Cluster, refuse_too_much, started
from refine_lab.lists.nodes import Place, compute_run, make_classifier
from refine_lab.lists.rows import Row, Rows
from refine_lab.projects import git
from refine_lab.runs.name import Name
from refine_lab.runs.recorded import HOME

log = logging.getLogger(__name__)

_TRIES = 3
"""How often a task is tried again whose worker or node is lost."""
_HEAD = ("download", "sources", "poison_dataset", "attacks", "train_backdoor")
"""Sections of the parameters that decide on the attacked classifier."""


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
                for name, result in Submitted(ray, rows.preset, project, cluster).finished(free):
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


Free = tuple[Row, Name, str]
"""A row that this process is to compute, and name and parameters file of its run."""


class Submitted:
    """Tasks of one list.

    Args:
        ray: connected.
        preset: of the list.
        project: root of the project.
        cluster: how runs are computed.
    """

    def __init__(self, ray: Any, preset: str, project: Path, cluster: Cluster) -> None:
        self._ray = ray
        self._preset = preset
        self._apart = cluster.apart
        self._bundle = ray.put(_bundle(project))
        self._place = ray.put(_place(project, cluster))
        wants = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "max_retries": _TRIES}
        self._make, self._compute = (ray.remote(**wants)(task) for task in (make_classifier, compute_run))
        self._waiting: dict[Any, list[Free]] = {}
        self._running: dict[Any, Name] = {}

    def finished(self, free: list[Free]) -> Iterator[tuple[Name, bytes | Exception]]:
        """The runs as they end, each with its content, or with the reason why there is none."""
        heads: dict[str, list[Free]] = {}
        for row, name, params in free:
            if row.machine:
                self._start((row, name, params), None)
            else:
                heads.setdefault(_head_of(params), []).append((row, name, params))
        for rows in heads.values():
            self._waiting[self._make.remote(self._bundle, self._place, rows[0][2])] = rows
        while self._waiting or self._running:
            (done, *_), _ = self._ray.wait([*self._waiting, *self._running])
            result = self._result(done)
            if done in self._running:
                yield self._running.pop(done), result
            elif isinstance(result, Exception):
                yield from ((name, result) for _, name, _ in self._waiting.pop(done))
            else:
                for run in self._waiting.pop(done):
                    self._start(run, result)

    def _start(self, run: Free, node: str | None) -> None:
        row, name, params = run
        task = self._compute
        if node is not None and self._apart:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)
            task = task.options(scheduling_strategy=strategy)
        self._running[task.remote(self._bundle, self._place, self._preset, row.model_dump(), params)] = name

    def _result(self, done: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(done)
        except exceptions.RayTaskError as error:
            return _reason(error)
        except exceptions.RayError as error:
            return UserError(first_line(error))


def _reason(error: Any) -> UserError:
    """Why a task failed; what nobody expected is shown as a whole."""
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    explanation = explained(cause)
    if explanation is None:
        log.error("%s", error)
    return UserError(explanation or f"{type(cause).__name__}: {first_line(cause)}")


def _place(project: Path, cluster: Cluster) -> Place:
    settings = {name: value for name, value in os.environ.items() if name.startswith("REFINE_")}
    asked = {"REFINE_THREADS": str(cluster.cpus), "OMP_NUM_THREADS": str(cluster.cpus)}
    if not cluster.gpus:
        asked["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides GPUs from those alone that ask for some
    if cluster.home is not None:
        home, cache = cluster.home, cluster.home / "cache"
    else:
        with Repo(str(project)) as repo:
            home, cache = project.resolve(), Path(repo.cache.local_cache_dir)
    return Place(home, cache, git(project, "rev-parse", "HEAD"), {**settings, **asked})


def _head_of(params: str) -> str:
    """What runs with the same attacked classifier have in common."""
    content = yaml.safe_load(params)
    attack = content["poison_dataset"]["attack"]["name"]
    own = {**content, "attacks": (content.get("attacks") or {}).get(attack)}
    return json.dumps({name: own.get(name) for name in _HEAD}, sort_keys=True, default=str)


def _bundle(project: Path) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "commit.bundle"
        git(project, "bundle", "create", "--quiet", str(file), "HEAD")
        return file.read_bytes()


def _home(project: Path, name: Name, result: bytes | Exception) -> Path:
    """Writes a run that came as bytes into the project.

    Raises:
        Exception: the reason that came instead.
    """
    if isinstance(result, Exception):
        raise result
    folder = project / HOME / str(name)
    with new_folder(folder) as part, tarfile.open(fileobj=io.BytesIO(result), mode="r:") as tar:
        tar.extractall(part, filter="data")
    return folder
