"""Shards with all samples of a folder, from one that holds only the changes to another, or knows where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.machine import DEFAULTS, Machine
from refine.core.progress import progress
from refine.shards.format.manifest import Manifest
from refine.shards.format.network import Put, new_prefix, remote
from refine.shards.reading.reader import Shards
from refine.shards.writer import Sample, put_shards, writing


def materialize(folder: Path, out: str, machine: Machine = DEFAULTS) -> Manifest:
    """Writes all samples of a folder as shards that need no other folder, and returns their manifest.

    One shard at a time is in memory. The manifest is written last; what ends early leaves nothing behind.

    Args:
        folder: of shards.
        out: a folder that is not there yet, or a URL with `s3`, `gs` or `az` below which nothing is.
        machine: its settings.

    Raises:
        UserError: the folder is damaged, the other one is there, or the URL cannot be written to.
    """
    with _new(out) as put:
        shards = Shards(folder, machine=machine)
        return put_shards(put, _samples(shards, folder), shards.manifest.description)


@contextmanager
def _new(out: str) -> Iterator[Put]:
    """What writes files to the folder or URL, all of which are removed after an error."""
    if remote(out):
        with new_prefix(out) as put:
            yield put
        return
    path = Path(out)
    if path.exists():
        raise UserError(f"{out} is there already; name another folder, or remove it")
    with new_folder(path) as part:
        yield writing(part)


def _samples(shards: Shards, folder: Path) -> Iterator[Sample]:
    for chunk in progress(shards, f"copy {folder}", len(shards.manifest.shards), "shard"):
        images = chunk.images.permute(0, 2, 3, 1).numpy()
        for key, image, label, info in zip(
            chunk.keys.tolist(), images, chunk.labels.tolist(), chunk.infos, strict=True
        ):
            yield Sample(key, image, label, info)
