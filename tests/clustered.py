"""A cluster on this machine, and tasks for it that compute nothing but are lost when a test wants it."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from refine.core.errors import UserError
from refine_lab.cluster import compute as cluster
from refine_lab.cluster import submitted
from refine_lab.cluster.connection import Cluster
from refine_lab.cluster.nodes import Place
from refine_lab.cluster.parcels import Parcel
from refine_lab.lists.parts import Part
from refine_lab.lists.rows import Row, Rows
from refine_lab.projects import CLASSIFIER_STAGE

ATTACKS = ("badnets", "blended", "none")
LISTED = Rows(preset="quick", rows=[Row(attack=attack, variant="clustered") for attack in ATTACKS])
NODE = "node"
"""A file in the project: the node that is said to have the classifiers."""
WAITS = "waits"
"""A file in the project: the attack whose first try waits to be killed."""


def fake_parts(bundle: bytes, place: Place, params: str, parts: list[Part]) -> str:
    """Makes nothing, on the node that the project names; no classifier for `blended`, if the project says so."""
    import ray

    del bundle
    if (place.home / "fails").exists() and "name: blended" in params and parts[-1].stage == CLASSIFIER_STAGE:
        raise UserError("no luck with this one")
    node = place.home / NODE
    return node.read_text(encoding="utf-8") if node.exists() else str(ray.get_runtime_context().get_node_id())


def fake_run(bundle: bytes, place: Place, preset: str, row: dict[str, Any], *others: Any) -> Parcel:
    """A recorded run without figures, which notes in the project that it was tried."""
    del bundle, others
    tries = place.home / "tries" / row["attack"]
    tries.parent.mkdir(exist_ok=True)
    with tries.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    waits = place.home / WAITS
    if waits.exists() and waits.read_text(encoding="utf-8") == row["attack"] and len(tried(place.home, row)) == 1:
        time.sleep(600)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        entry = tarfile.TarInfo(f"folder-{preset}-{row['attack']}-{row['defense']}-{row['variant']}-s1/run.json")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"{}"))
    return Parcel(content.getvalue())


def tried(project: Path, row: Row | dict[str, Any] | str) -> list[int]:
    """Processes that a run of an attack was tried in."""
    attack = row if isinstance(row, str) else row["attack"] if isinstance(row, dict) else row.attack
    file = project / "tries" / attack
    return [int(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


@contextmanager
def once_tried(project: Path, attack: str, act: Callable[[int], None]) -> Iterator[None]:
    """Calls a function with the number of the first process that tries an attack, while the block runs."""

    def watch() -> None:
        while not tried(project, attack):
            time.sleep(0.05)
        act(tried(project, attack)[0])

    thread = Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def with_fakes() -> None:
    """Has lists compute nothing. Nodes get the functions whole, as they do not know this module."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    submitted.make_parts = fake_parts
    submitted.compute_run = fake_run
    submitted.known = lambda *_: []


if __name__ == "__main__":  # the process that is given the list, in a test that kills it
    sys.modules["clustered"] = sys.modules[__name__]
    with_fakes()
    cluster.compute(LISTED, [], commit=False, project=Path(sys.argv[1]), cluster=Cluster())
