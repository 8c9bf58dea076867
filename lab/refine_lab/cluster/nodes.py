"""What a node of a cluster does for a list of runs, in tasks that Ray may start more than once.

What a task has started ends with its worker (`core.starter`); a task that is tried again waits until that is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from refine.core import starter
from refine.core.errors import UserError
from refine.core.files import new_file
from refine_lab.cluster.parcels import Parcel, models_of, packed, take_models, unpacked, with_models
from refine_lab.lists import clones
from refine_lab.lists.clones import Clone
from refine_lab.lists.compute import computed_in, make_in
from refine_lab.lists.parts import Part, make_once
from refine_lab.lists.rows import Row
from refine_lab.runs.recorded import HOME, read

_PATIENCE = 30.0
"""Seconds that a task waits for what an earlier one left running."""
_PAUSE = 0.2


@dataclass(frozen=True)
class Place:
    """Where a node works, and on what.

    Attributes:
        home: folder for clones and checkpoints.
        cache: of DVC.
        ships: whether that cache is another one than that of the project with the list, which models then come from
            and go to.
        commit: whose code it is.
        environment: settings of the machine (`REFINE_*`), for every run.
    """

    home: Path
    cache: Path
    ships: bool
    commit: str
    environment: dict[str, str]


def make_parts(bundle: bytes, place: Place, params: str, parts: list[Part]) -> str:
    """A task: what several runs have in common, into the node's cache, in this order; the node's name."""
    import ray

    with _clone(bundle, place) as clone:
        _make(place, clone, params, parts)
    return str(ray.get_runtime_context().get_node_id())


def _make(place: Place, clone: Clone, params: str, parts: list[Part]) -> None:
    for part in parts:
        make_once(place.home, place.cache, part, partial(make_in, clone, params, part))


def compute_run(
    bundle: bytes,
    place: Place,
    preset: str,
    row: dict[str, Any],
    params: str,
    parts: list[Part],
    recorded: bytes,
    models: bytes,
) -> Parcel:
    """A task: a run, once this node has its parts, which a lost one may have taken along; it comes as a parcel.

    It is given the recorded runs that its recording looks at, and models of theirs (see `submitted.Submitted`).
    """
    wanted = Row.model_validate(row)
    with TemporaryDirectory() as folder:
        kept, own = Path(folder) / "kept", Path(folder) / "own"
        home = _keeper(kept, place.cache)
        with clones.lock(place.home, "models", wait=True):
            take_models(models, place.cache)
        unpacked(recorded, home)
        # a run with settings of its own finds nothing in a cache
        where = replace(place, home=own, cache=own / "cache") if wanted.machine else place
        with _clone(bundle, where, place.cache) as clone:
            _make(place, clone, params, parts)
            made = computed_in(clone, preset, wanted, params, home)
            sends = place.ships and wanted.attack == "none"
            models = with_models(where.cache, models_of(read(made))) if sends else b""
        return Parcel(packed([made]), models)


def _keeper(folder: Path, cache: Path) -> Path:
    """A project that has nothing but recorded runs and a cache, as that with the list has; their folder."""
    (folder / ".dvc").mkdir(parents=True)
    config = f"[core]\n    no_scm = true\n[cache]\n    dir = {cache.resolve()}\n"
    (folder / ".dvc/config").write_text(config, encoding="utf-8")
    return folder / HOME


@contextmanager
def _clone(bundle: bytes, place: Place, own_data: Path | None = None) -> Iterator[Clone]:
    """A clone of the commit on this node, once nothing runs any more that a lost task has left."""
    os.environ.update(place.environment)
    file = place.home / clones.HOME / f"{place.commit}.bundle"
    with clones.lock(place.home, "bundle", wait=True):
        if not file.is_file():
            with new_file(file) as part:
                part.write_bytes(bundle)
    _wait_for_orphans(place.home)
    with clones.elsewhere(place.home, file, place.cache, own_data) as clone:
        yield clone


def _wait_for_orphans(home: Path) -> None:
    """Returns when no process works below a folder whose starter is gone.

    Raises:
        UserError: one does not end.
    """
    until = time.monotonic() + _PATIENCE
    while left := list(_orphans(home)):
        if time.monotonic() > until:
            raise UserError(f"process {left[0]} of a lost run does not end; stop it, and start the list again")
        time.sleep(_PAUSE)


def _orphans(home: Path) -> Iterator[int]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mark = process.environ().get(starter.NAME)
            if mark and not starter.alive(mark) and Path(process.cwd()).is_relative_to(home.resolve()):
                yield process.pid
