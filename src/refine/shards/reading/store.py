"""Where samples come from: a folder of shards, one that holds the changes to another, or an index of shards elsewhere.

An attack changes a few samples in a hundred. So a poisoned data set consists of these alone, and all others are read
from the clean one. Whoever reads it sees one folder with all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.machine import DEFAULTS, Machine
from refine.shards.format.index import Index
from refine.shards.format.manifest import NAME, Manifest, Overlay, Shard
from refine.shards.reading import folder as folders
from refine.shards.reading.held_out import left_to
from refine.shards.reading.indexed import Indexed
from refine.shards.reading.shard import Chunk, read_flags, read_labels, read_shard


class Store(Protocol):
    """Attributes:
    manifest: of all samples that are read.
    """

    manifest: Manifest

    def read(self, shard: Shard, only_images: bool = False, selected: Tensor | None = None) -> Chunk:
        """The samples of a shard of the manifest; arguments as of `shard.read_shard`."""

    def labels(self, shard: Shard) -> tuple[Tensor, Tensor]:
        """Its keys and labels, see `shard.read_labels`."""

    def flags(self, shard: Shard, name: str) -> Tensor:
        """Values of a boolean in the JSON of its samples, bool [n], without decoding an image.

        Raises:
            UserError: it is missing or not a boolean in a sample.
        """

    def announce(self, shard: Shard) -> None:
        """Says that a shard will be read next, so that it can be fetched while another one is decoded."""


def open_store(folder: Path, machine: Machine = DEFAULTS) -> Store:
    """A folder of shards.

    Args:
        folder: of any kind.
        machine: its settings, for shards that lie elsewhere.

    Raises:
        UserError: it is damaged, or its base is, or is another one now.
    """
    manifest = folders.complete(folder)
    said = folders.described(folder)
    if isinstance(said, Index):
        return Indexed(folder, said, machine)
    if isinstance(said, Overlay):
        return Overlaid(folder, said, manifest, open_store(folders.base_of(folder, said), machine))
    return Whole(folder, manifest)


class Whole:
    """A folder that holds all of its samples."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._folder = folder

    def read(self, shard: Shard, only_images: bool = False, selected: Tensor | None = None) -> Chunk:
        return read_shard(self._folder, shard, self.manifest, only_images, selected)

    def labels(self, shard: Shard) -> tuple[Tensor, Tensor]:
        return read_labels(self._folder, shard, self.manifest)

    def flags(self, shard: Shard, name: str) -> Tensor:
        return read_flags(self._folder, shard, name)

    def announce(self, shard: Shard) -> None:
        del shard


class Overlaid:
    """A folder that holds changed samples, over one that holds them all.

    The JSON of a sample says whether it is poisoned and what its label was; for those that are read from the base this
    is added here.

    Args:
        folder: of the changed samples.
        overlay: its manifest.
        manifest: of the result.
        base: the one below.
    """

    def __init__(self, folder: Path, overlay: Overlay, manifest: Manifest, base: Store) -> None:
        self.manifest = manifest
        self._folder = folder
        self._base = base
        below = base.manifest
        self._below = {shard.name: shard for shard in below.shards}
        self._changed = {shard.name: shard for shard in overlay.shards}
        left_over = left_to(overlay.owner, below.samples, overlay.held_out)
        left = torch.split(left_over, [shard.samples for shard in below.shards])
        self._left = dict(zip(self._below, left, strict=True))
        if [int(own.sum()) for own in left] != overlay.sizes:
            raise UserError(
                f"{folder / NAME} cannot be used (sizes: they do not follow from held_out {overlay.held_out} and owner "
                f"{overlay.owner}); run `dvc repro`"
            )

    def read(self, shard: Shard, only_images: bool = False, selected: Tensor | None = None) -> Chunk:
        wanted = self._left[shard.name].clone()
        if selected is not None:
            wanted[self._left[shard.name]] = selected
        chunk = self._base.read(self._below[shard.name], only_images, None if wanted.all() else wanted)
        infos = [self._unchanged(*about) for about in zip(chunk.infos, chunk.labels.tolist(), strict=True)]
        if shard.name in self._changed:
            own = read_shard(self._folder, self._changed[shard.name], self.manifest, only_images)
            taken, rows = self._places(own.keys, chunk.keys, shard, selected is None)
            chunk.images[rows] = own.images[taken]
            if not only_images:
                chunk.labels[rows] = own.labels[taken]
                for place, row in zip(taken.tolist(), rows.tolist(), strict=True):
                    infos[row] = own.infos[place]
        return Chunk(chunk.keys, chunk.images, chunk.labels, infos)

    def labels(self, shard: Shard) -> tuple[Tensor, Tensor]:
        keys, labels = self._labels_below(shard)
        if shard.name in self._changed:
            own, given = read_labels(self._folder, self._changed[shard.name], self.manifest)
            taken, rows = self._places(own, keys, shard, whole=True)
            labels[rows] = given[taken]
        return keys, labels

    def flags(self, shard: Shard, name: str) -> Tensor:
        keys, _ = self._labels_below(shard)
        flags = torch.zeros(len(keys), dtype=torch.bool)  # of all that are read from the base
        if shard.name in self._changed:
            own = self._changed[shard.name]
            taken, rows = self._places(read_labels(self._folder, own, self.manifest)[0], keys, shard, whole=True)
            flags[rows] = read_flags(self._folder, own, name)[taken]
        return flags

    def announce(self, shard: Shard) -> None:
        self._base.announce(self._below[shard.name])

    def _labels_below(self, shard: Shard) -> tuple[Tensor, Tensor]:
        """Keys and labels in the base, of the samples that are left."""
        keys, labels = self._base.labels(self._below[shard.name])
        left = self._left[shard.name]
        return keys[left], labels[left]

    def _places(self, changed: Tensor, keys: Tensor, shard: Shard, whole: bool) -> tuple[Tensor, Tensor]:
        """Which of the changed samples are among these, and where."""
        row_of = {key: row for row, key in enumerate(keys.tolist())}
        pairs = [(place, row_of[key]) for place, key in enumerate(changed.tolist()) if key in row_of]
        if whole and len(pairs) < len(changed):
            raise UserError(
                f"{self._folder / shard.name} changes a sample that its base does not have, or that is left out; write "
                "the shards again"
            )
        taken, rows = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(dim=1)
        return taken, rows

    def _unchanged(self, info: dict[str, Any], label: int) -> dict[str, Any]:
        return flagged(info, False, False, (label, label) if self.manifest.labeled else None)


def flagged(info: dict[str, Any], poisoned: bool, cover: bool, labels: tuple[int, int] | None) -> dict[str, Any]:
    """The JSON of a sample of a poisoned data set.

    Args:
        info: of the clean sample.
        poisoned: whether it has the trigger and the attacker's label.
        cover: whether it has the trigger and keeps its label.
        labels: the original one and the one that the attacker gives; None where there are none.
    """
    known = {} if labels is None else {"original_label": labels[0], "given_label": labels[1]}
    return {**info, "poisoned": poisoned, "cover": cover, **known}
