"""Reading a folder of shards, at once or as a stream. Each sample is read once; missing samples are an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
import webdataset
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from refine.core.errors import UserError
from refine.core.machine import DEFAULTS, Machine
from refine.core.progress import progress
from refine.shards.format.manifest import Manifest
from refine.shards.reading.pixels import empty_images
from refine.shards.reading.shard import Chunk, flags
from refine.shards.reading.store import open_store
from refine.shards.reading.stored import refuse_miscounted

Item = TypeVar("Item")


class Shards(IterableDataset[Chunk]):
    """The shards of a folder, decoded one by one in a webdataset pipeline.

    Args:
        folder: of the shards.
        only_images: do not read labels and infos.
        machine: its settings, for shards that lie elsewhere.

    Attributes:
        manifest: of the folder.
        order: numbers of the shards that one pass yields, in this order; initially all of them.

    Of n workers, each reads every n-th shard, and a `DataLoader` without batching takes their results in turn. So the
    order is the same for any number of workers, even if there are more workers than shards.

    Raises:
        UserError: the folder is damaged (at construction), or a shard is (while reading).
    """

    def __init__(self, folder: Path, only_images: bool = False, machine: Machine = DEFAULTS) -> None:
        self._store = open_store(folder, machine)
        self.manifest = self._store.manifest
        self.order = list(range(len(self.manifest.shards)))
        self._only_images = only_images

    def __iter__(self) -> Iterator[Chunk]:
        if self.order:
            names = webdataset.SimpleShardList([self.manifest.shards[number].name for number in self.order])
            yield from webdataset.DataPipeline(names, webdataset.split_by_worker, self._decoded)

    def _decoded(self, names: Iterable[dict[str, str]]) -> Iterator[Chunk]:
        shards = {shard.name: shard for shard in self.manifest.shards}
        own = [shards[name["url"]] for name in names]
        for shard, later in zip_longest(own, own[1:]):
            if later:
                self._store.announce(later)
            yield self._store.read(shard, self._only_images)


def loaded(items: IterableDataset[Item], workers: int) -> Iterator[Item]:
    """One pass over shards, or over a data set made from them, read ahead by worker processes (0: by this process).

    Raises:
        UserError: a shard is damaged.
    """
    try:
        own = Generator()  # otherwise the loader would draw from the global random state
        ahead = 1 if workers else None  # a decoded shard of photographs takes hundreds of megabytes
        yield from DataLoader(items, batch_size=None, num_workers=workers, prefetch_factor=ahead, generator=own)
    except UserError as error:  # errors of worker processes start with a traceback
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None


@dataclass(frozen=True)
class Split:
    """A folder of shards in memory, ordered by key.

    Attributes:
        images: uint8 [N, 3, side, side], RGB.
        labels: int64 [N]; 0 for all where the data set has no labels, see `manifest.labeled`.
        keys: int64 [N], ascending.
        infos: the JSON of each sample.
        manifest: of the folder.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    infos: list[dict[str, Any]]
    manifest: Manifest

    def flags(self, name: str) -> Tensor:
        """Values of a boolean in the JSON of each sample, bool [N]."""
        return flags(self.infos, name)

    def subset(self, selected: Tensor) -> Split:
        """The samples where bool [N] is true; the manifest stays that of the folder."""
        return self._rows(selected.nonzero().flatten())

    def sorted(self) -> Split:
        """Ordered by key."""
        return self._rows(self.keys.argsort())

    def _rows(self, rows: Tensor) -> Split:
        return Split(
            images=self.images[rows],
            labels=self.labels[rows] if len(self.labels) else self.labels,
            keys=self.keys[rows],
            infos=[self.infos[row] for row in rows.tolist()] if self.infos else [],
            manifest=self.manifest,
        )


def read_split(folder: Path, only_images: bool = False, machine: Machine = DEFAULTS) -> Split:
    """Decodes a whole folder.

    Args:
        folder: of the shards.
        only_images: do not read labels and infos and leave them empty, as for a defender without labels.
        machine: its settings, for shards that lie elsewhere.

    Raises:
        UserError: the folder is damaged or does not match its manifest.
    """
    shards = Shards(folder, only_images, machine)
    description = shards.manifest
    images = empty_images(description.samples, description.side)
    keys = torch.empty(description.samples, dtype=torch.int64)
    labels: list[Tensor] = []
    infos: list[dict[str, Any]] = []
    row = 0
    for chunk in progress(shards, f"read {folder}", len(description.shards), "shard"):
        rows = slice(row, row + len(chunk.keys))
        images[rows], keys[rows] = chunk.images, chunk.keys
        labels.append(chunk.labels)
        infos += chunk.infos
        row = rows.stop
    split = Split(images, torch.cat([*labels, torch.zeros(0, dtype=torch.int64)]), keys, infos, description)
    if not only_images:
        refuse_miscounted(folder, description, split.labels)
    if not bool((keys.diff() > 0).all()):
        split = split.sorted()
    if bool((split.keys.diff() == 0).any()):
        raise UserError(f"two samples of {folder} have the same key; write the shards again")
    return split
