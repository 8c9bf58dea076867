"""Training images where training wants them: whole on the device, or streamed where they are too many.

Which of the two it is depends on the memory budget of the machine and changes nothing about the result: both
give the same samples in the same order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from refine.core.errors import UserError
from refine.core.progress import progress
from refine.models.device import Compute
from refine.shards.format.manifest import Manifest
from refine.shards.reading.pixels import at_rest
from refine.shards.reading.reader import Shards, Split, loaded, read_split
from refine.shards.reading.shard import Chunk, flags
from refine.training.order import Columns, Part

log = logging.getLogger(__name__)


class TrainingSet(Protocol):
    """What batches are cut from.

    A sample is a row of columns: its image, and one int64 column for each field that training asked for.

    Attributes:
        side: height and width of the images.
        sizes: samples of each shard.
        memory: bytes that a shuffle buffer may take where the set is streamed, which it shares; None sets no bound.
    """

    side: int
    sizes: list[int]
    memory: int | None

    def subset(self, selected: Tensor) -> TrainingSet:
        """The samples where bool [N] is true, N counting all samples in the order of the shards."""

    def blocks(self, parts: list[Part]) -> Iterator[Columns]:
        """The samples of these parts, as whatever `delivered` understands."""

    def delivered(self, columns: Columns, device: torch.device) -> Columns:
        """A batch of what `blocks` gave: images uint8 [B, 3, side, side] and the fields, on the device."""


def in_order(images: TrainingSet, at_once: int, device: torch.device, name: str) -> Iterator[Columns]:
    """All samples in the order of the shards, at most so many at a time, as `TrainingSet.delivered` gives them.

    Args:
        images: of any kind.
        at_once: samples.
        device: where they are wanted.
        name: of what is done, for the progress bar.
    """
    parts = [Part(number, 0, size) for number, size in enumerate(images.sizes) if size]
    for block in progress(images.blocks(parts), name, len(parts)):
        for columns in zip(*(torch.split(column, at_once) for column in block), strict=True):
            yield images.delivered(columns, device)


class Resident:
    """A data set that is kept whole on the device; its blocks are row numbers.

    Args:
        images: uint8 [N, 3, H, W].
        fields: int64 [N] each.
        sizes: samples of each shard; one shard where this is None.
        device: where they are kept.
    """

    memory: int | None = None

    def __init__(
        self, images: Tensor, fields: Columns, device: torch.device | str = "cpu", sizes: list[int] | None = None
    ) -> None:
        self.side = images.shape[-1]
        self.sizes = [len(images)] if sizes is None else sizes
        self._columns = (at_rest(images).permute(0, 2, 1, 3).to(device), *(field.to(device) for field in fields))

    def subset(self, selected: Tensor) -> Resident:
        rows = selected.nonzero().flatten().to(self._columns[0].device)
        images, *fields = (column[rows] for column in self._columns)
        sizes = [int(part.sum()) for part in torch.split(selected, self.sizes)]
        return Resident(images.permute(0, 2, 1, 3), tuple(fields), images.device, sizes)

    def blocks(self, parts: list[Part]) -> Iterator[Columns]:
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        for part in parts:
            yield (torch.arange(starts[part.number] + part.start, starts[part.number] + part.stop),)

    def delivered(self, columns: Columns, device: torch.device) -> Columns:
        rows = columns[0].to(self._columns[0].device)
        images, *fields = (column[rows] for column in self._columns)
        return images.permute(0, 2, 1, 3), *fields


class Streamed:
    """A data set that is read again in every epoch, shard by shard.

    Args:
        shards: to read.
        fields: names; `label`, `key`, or a flag in the JSON of the samples.
        workers: processes that decode.
        memory: bytes that a shuffle buffer may take; None sets no bound.
        selected: bool [N], the samples to give; all where this is None.
    """

    def __init__(
        self,
        shards: Shards,
        fields: tuple[str, ...],
        workers: int,
        memory: int | None = None,
        selected: Tensor | None = None,
    ) -> None:
        manifest = shards.manifest
        everything = torch.ones(manifest.samples, dtype=torch.bool) if selected is None else selected
        self.side = manifest.side
        self.memory = memory
        self._selected = torch.split(everything, [shard.samples for shard in manifest.shards])
        self.sizes = [int(part.sum()) for part in self._selected]
        self._shards = shards
        self._fields = fields
        self._workers = workers

    def subset(self, selected: Tensor) -> Streamed:
        every = torch.cat(self._selected)
        every[every.clone()] = selected
        return Streamed(self._shards, self._fields, self._workers, self.memory, every)

    def blocks(self, parts: list[Part]) -> Iterator[Columns]:
        self._shards.order = [part.number for part in parts]
        columns = loaded(_Columns(self._shards, self._fields), self._workers)
        for part, block in zip(parts, columns, strict=True):
            selected = self._selected[part.number]
            if not selected.all():
                block = tuple(column[selected] for column in block)
            yield tuple(column[part.start : part.stop] for column in block)

    def delivered(self, columns: Columns, device: torch.device) -> Columns:
        images, *fields = (column.to(device) for column in columns)
        return images.permute(0, 2, 1, 3), *fields


class _Columns(IterableDataset[Columns]):
    """Shards as columns, made where they are decoded: tensors reach the training from there without a copy."""

    def __init__(self, shards: Shards, fields: tuple[str, ...]) -> None:
        self._shards = shards
        self._fields = fields

    def __iter__(self) -> Iterator[Columns]:
        for chunk in self._shards:
            yield chunk.images.permute(0, 2, 1, 3), *_fields(chunk, self._fields)


def open_training_set(folder: Path, fields: tuple[str, ...], compute: Compute) -> tuple[TrainingSet, Manifest]:
    """A folder of shards, kept on the device where the machine's memory budget allows it, streamed elsewhere.

    Args:
        folder: of the shards.
        fields: `label`, `key` and flags to give with each image; with none of them nothing but images is read.
        compute: of the training: its device, and the machine's memory and workers.

    Raises:
        UserError: the folder is damaged, or has no labels though they are asked for.
    """
    device, settings = compute.device, compute.machine
    memory = settings.memory << 20
    shards = Shards(folder, not fields, settings)
    manifest = shards.manifest
    if "label" in fields:
        manifest.refuse_unlabeled(folder, "This training")
    size = manifest.samples * 3 * manifest.side**2
    if size > memory:
        log.info("%d images, %s: streamed (REFINE_MEMORY)", manifest.samples, _told(size))
        return Streamed(shards, fields, settings.workers, memory), manifest
    split = read_split(folder, not fields, settings)
    log.info("%d images, %s: kept on %s", manifest.samples, _told(size), device)
    sizes = [shard.samples for shard in manifest.shards]
    return Resident(split.images, _fields(split, fields), device, sizes), manifest


def _fields(samples: Chunk | Split, names: tuple[str, ...]) -> Columns:
    columns = {"label": samples.labels, "key": samples.keys}
    return tuple(columns[name] if name in columns else flags(samples.infos, name).long() for name in names)


def _told(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def refuse_large_buffer(training_set: TrainingSet, buffer: int) -> None:
    """A streamed data set's shuffle buffer has to fit the budget that the data set does not fit.

    Raises:
        UserError: it does not.
    """
    buffer = min(buffer, sum(training_set.sizes))
    size = buffer * 3 * training_set.side**2
    if training_set.memory is not None and size > training_set.memory:
        raise UserError(
            f"a shuffle buffer of {buffer:,} images takes {_told(size)}, more than REFINE_MEMORY; "
            "raise that, or lower shuffle_buffer"
        )
