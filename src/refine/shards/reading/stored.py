"""A folder of shards whose labels are in memory and whose images are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.machine import DEFAULTS, Machine
from refine.core.progress import progress
from refine.shards.format.manifest import Manifest, Shard
from refine.shards.reading.pixels import empty_images
from refine.shards.reading.shard import Chunk
from refine.shards.reading.store import Store, open_store


class StoredImages:
    """Images on disk, of which a shard at a time is in memory.

    Args:
        store: of the images.
        rows: int64 [n], ascending; which of them these are, counted in the order of the shards.
    """

    def __init__(self, store: Store, rows: Tensor) -> None:
        self._store = store
        self._rows = rows
        self.side = store.manifest.side

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, places: Tensor) -> Tensor:
        """The images at these places, in their order, uint8 [n, 3, side, side]."""
        found, back = torch.unique(places, return_inverse=True)
        images = empty_images(len(found), self.side)
        done = 0
        for _, chunk in self.chunks(found, only_images=True):
            images[done : done + len(chunk.keys)] = chunk.images
            done += len(chunk.keys)
        return images if torch.equal(back, torch.arange(len(found))) else images[back]

    def subset(self, places: Tensor) -> StoredImages:
        """The images at these places, int64, ascending, without reading them."""
        return StoredImages(self._store, self._rows[places])

    def chunks(self, places: Tensor, only_images: bool = False) -> Iterator[tuple[str, Chunk]]:
        """The samples at these places, int64, ascending: those of one shard at a time, with the shard's name."""
        wanted = list(self._wanted(self._rows[places]))
        for (shard, selected), later in zip(wanted, [*wanted[1:], None], strict=False):
            if later:
                self._store.announce(later[0])
            yield shard.name, self._store.read(shard, only_images, selected)

    def _wanted(self, rows: Tensor) -> Iterator[tuple[Shard, Tensor]]:
        """The shards that hold these rows, int64, ascending, and which of their samples these are."""
        start = 0
        for shard in self._store.manifest.shards:
            first, last = torch.searchsorted(rows, torch.tensor([start, start + shard.samples])).tolist()
            if first < last:
                selected = torch.zeros(shard.samples, dtype=torch.bool)
                selected[rows[first:last] - start] = True
                yield shard, selected
            start += shard.samples

    def flags(self, name: str) -> Tensor:
        """Values of a boolean in the JSON of each sample, bool [n].

        Raises:
            UserError: it is missing or not a boolean in a sample.
        """
        found = [self._store.flags(shard, name)[selected] for shard, selected in self._wanted(self._rows)]
        return torch.cat([torch.zeros(0, dtype=torch.bool), *found])

    def batches(self, size: int) -> Iterator[Tensor]:
        """All of them in order, at most so many at a time."""
        rest = empty_images(0, self.side)
        for _, chunk in self.chunks(torch.arange(len(self)), only_images=True):
            joined = torch.cat([rest, chunk.images])
            whole = len(joined) // size * size
            yield from torch.split(joined[:whole], size) if whole else ()
            rest = joined[whole:].clone()
        if len(rest):
            yield rest


@dataclass(frozen=True)
class StoredSplit:
    """As `reader.Split`, but for images that stay on disk.

    Attributes:
        images: that are read when they are asked for.
        labels: int64 [N]; 0 for all where the data set has no labels.
        keys: int64 [N], ascending.
        manifest: of the folder.
    """

    images: StoredImages
    labels: Tensor
    keys: Tensor
    manifest: Manifest

    def subset(self, selected: Tensor) -> StoredSplit:
        """The samples where bool [N] is true; the manifest stays that of the folder."""
        rows = selected.nonzero().flatten()
        return StoredSplit(self.images.subset(rows), self.labels[rows], self.keys[rows], self.manifest)


def open_split(folder: Path, machine: Machine = DEFAULTS) -> StoredSplit:
    """Reads keys and labels of a folder, and no image.

    Args:
        folder: of the shards.
        machine: its settings, for shards that lie elsewhere.

    Raises:
        UserError: the folder is damaged or does not match its manifest.
    """
    store = open_store(folder, machine)
    manifest = store.manifest
    none = torch.zeros(0, dtype=torch.int64)
    found = [store.labels(shard) for shard in progress(manifest.shards, f"look through {folder}", unit="shard")]
    keys, labels = (torch.cat([none, *column]) for column in zip(*found, strict=True)) if found else (none, none)
    refuse_miscounted(folder, manifest, labels)
    if not bool((keys.diff() > 0).all()):
        raise UserError(f"the samples of {folder} are not in the order of their keys; write the shards again")
    return StoredSplit(StoredImages(store, torch.arange(len(keys))), labels, keys, manifest)


def refuse_miscounted(folder: Path, manifest: Manifest, labels: Tensor) -> None:
    """Requires as many samples of each class as the manifest says.

    Raises:
        UserError: there are more or fewer.
    """
    if manifest.labeled and labels.bincount(minlength=len(manifest.classes)).tolist() != manifest.counts:
        raise UserError(f"the labels in {folder} differ from the counts in its manifest; write the shards again")
