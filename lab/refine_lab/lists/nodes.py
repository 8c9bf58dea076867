"""What a node of a cluster does for a list of runs. Ray calls these functions, perhaps more than once for a run.

What a task has started ends with its worker (`core.starter`); a task that is tried again waits until that is gone.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from refine.core import starter
from refine.core.errors import UserError
from refine.core.files import new_file
from refine_lab.lists import clones
from refine_lab.lists.clones import Clone
from refine_lab.lists.compute import computed_in, repro
from refine_lab.lists.rows import Row
from refine_lab.projects import CLASSIFIER_STAGE, PARAMS

_PATIENCE = 30.0
"""Seconds that a task waits for what an earlier one left running."""
_PAUSE = 0.2


@dataclass(frozen=True)
class Place:
    """Where a node works, and on what.

    Attributes:
        home: folder for clones and checkpoints.
        cache: of DVC.
        commit: whose code it is.
        environment: settings of the machine (`REFINE_*`), for every run.
    """

    home: Path
    cache: Path
    commit: str
    environment: dict[str, str]


def make_classifier(bundle: bytes, place: Place, params: str) -> str:
    """A task: the attacked classifier that several runs have in common, into the node's cache; the node's name."""
    import ray

    with _clone(bundle, place) as clone:
        (clone.folder / PARAMS).write_text(params, encoding="utf-8")
        repro(clone, Row(attack="none"), [CLASSIFIER_STAGE])
    return str(ray.get_runtime_context().get_node_id())


def compute_run(bundle: bytes, place: Place, preset: str, row: dict[str, Any], params: str) -> bytes:
    """A task: a run, as a tar archive of its recorded folder."""
    wanted = Row.model_validate(row)
    with TemporaryDirectory() as folder:
        own = Path(folder) / "own"  # a run with settings of its own finds nothing in a cache
        where = replace(place, home=own, cache=own / "cache") if wanted.machine else place
        with _clone(bundle, where) as clone:
            recorded = computed_in(clone, preset, wanted, params, Path(folder))
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            tar.add(recorded, arcname=".")
    return content.getvalue()


@contextmanager
def _clone(bundle: bytes, place: Place) -> Iterator[Clone]:
    """A clone of the commit on this node, once nothing runs any more that a lost task has left."""
    os.environ.update(place.environment)
    file = place.home / clones.HOME / f"{place.commit}.bundle"
    with clones.lock(place.home, "bundle", wait=True):
        if not file.is_file():
            with new_file(file) as part:
                part.write_bytes(bundle)
    _wait_for_orphans(place.home)
    with clones.elsewhere(place.home, file, place.cache) as clone:
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
