"""A folder of shards with all of its samples, from one that holds only the changes to another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.machine import DEFAULTS, Machine
from refine.core.progress import progress
from refine.shards.format.manifest import Manifest
from refine.shards.reading.reader import Shards
from refine.shards.writer import Sample, write_shards


def materialize(folder: Path, out: Path, machine: Machine = DEFAULTS) -> Manifest:
    """Writes all samples of a folder as shards that need no other folder, and returns their manifest.

    Args:
        folder: of shards.
        out: a folder that is not there yet.
        machine: its settings.

    Raises:
        UserError: the folder is damaged, or the other one is there.
    """
    if out.exists():
        raise UserError(f"{out} is there already; name another folder, or remove it")
    shards = Shards(folder, machine=machine)
    with new_folder(out) as part:
        return write_shards(part, _samples(shards, folder), shards.manifest.description)


def _samples(shards: Shards, folder: Path) -> Iterator[Sample]:
    for chunk in progress(shards, f"copy {folder}", len(shards.manifest.shards), "shard"):
        images = chunk.images.permute(0, 2, 3, 1).numpy()
        for key, image, label, info in zip(
            chunk.keys.tolist(), images, chunk.labels.tolist(), chunk.infos, strict=True
        ):
            yield Sample(key, image, label, info)
