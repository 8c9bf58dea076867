"""Shards that lie elsewhere, as if they were here: fetched and decoded when they are asked for."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.shards.format import elsewhere, preparation
from refine.shards.format.elsewhere import Expected
from refine.shards.format.index import LABELS, Index, Place
from refine.shards.format.manifest import Shard
from refine.shards.format.network import remote
from refine.shards.format.strangers import Stranger, shown, strangers
from refine.shards.reading.pixels import empty_images
from refine.shards.reading.shard import Chunk
from refine.shards.reading.tensors import load_tensors

_REMEDY = "run `dvc repro -f download`"


class Indexed:
    """A folder that describes shards elsewhere. Keys count from 0 over all of them.

    Args:
        folder: of the index.
        index: its content.
        machine: says where local paths begin, and how much of what was fetched may be kept.

    Raises:
        UserError: the labels are missing or are others.
    """

    def __init__(self, folder: Path, index: Index, machine: Machine) -> None:
        self.manifest = index.manifest
        self._index = index
        self._machine = machine
        self._ahead: dict[tuple[int, str], Future[bytes]] = {}  # by process and shard
        sizes = [shard.samples for shard in index.shards]
        expected = {"labels": (sum(sizes),)}
        labels = load_tensors(folder / LABELS, index.labels_sha256, _REMEDY, expected)["labels"]
        bounds = labels.aminmax() if len(labels) else (0, 0)
        if labels.dtype != torch.int32 or not 0 <= int(bounds[0]) <= int(bounds[1]) < max(1, len(index.classes)):
            raise UserError(f"{folder / LABELS} holds a label that is no class; {_REMEDY}")
        labels = labels.long()
        names = [shard.name for shard in index.shards]
        self._labels = dict(zip(names, torch.split(labels, sizes), strict=True))
        self._keys = dict(zip(names, torch.split(torch.arange(len(labels)), sizes), strict=True))
        self._places = {shard.name: shard for shard in index.shards}

    def labels(self, shard: Shard) -> tuple[Tensor, Tensor]:
        return self._keys[shard.name], self._labels[shard.name].clone()

    def read(self, shard: Shard, only_images: bool = False, selected: Tensor | None = None) -> Chunk:
        place = self._places[shard.name]
        data = self._content(place)
        wanted = torch.ones(shard.samples, dtype=torch.bool) if selected is None else selected
        key = ""
        try:
            every = strangers(data)
            if len(every) != shard.samples:
                raise ValueError(f"it holds {len(every)} of {shard.samples} samples")  # noqa: TRY301
            own = [sample for sample, is_wanted in zip(every, wanted.tolist(), strict=True) if is_wanted]
            images = empty_images(len(own), self.manifest.side)
            infos = []
            for row, sample in enumerate(own):
                key = sample.key
                images[row] = self._image(place, sample, data)
                if not only_images:
                    infos.append(sample.about(data))
        except ValueError as error:
            where = f"sample {shown(key)} of {place.address}" if key else place.address
            raise UserError(f"{where} cannot be read ({error}); {_REMEDY}") from None
        labels = self._labels[shard.name][wanted] if not only_images else torch.zeros(0, dtype=torch.int64)
        return Chunk(self._keys[shard.name][wanted], images, labels, infos)

    def flags(self, shard: Shard, name: str) -> Tensor:
        place = self._places[shard.name]
        raise UserError(f"{place.address} says of no sample whether it is {name}; run `dvc repro poison-dataset` first")

    def announce(self, shard: Shard) -> None:
        place, own = self._places[shard.name], os.getpid()
        self._ahead = {begun: future for begun, future in self._ahead.items() if begun[0] == own}
        if remote(place.address) and (own, place.name) not in self._ahead:
            self._ahead[own, place.name] = _pool().submit(self._fetched, place)

    def _content(self, place: Place) -> bytes:
        begun = self._ahead.pop((os.getpid(), place.name), None)
        return begun.result() if begun else self._fetched(place)

    def _fetched(self, place: Place) -> bytes:
        return elsewhere.content(place.address, Expected(place.size, place.sha256), self._machine)

    def _image(self, place: Place, sample: Stranger, data: bytes) -> Tensor:
        path = Path(place.address.rpartition("/")[2]) / shown(sample.key)
        pixels = preparation.read(path, self._index.preparation, sample.image(data))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


_POOLS: dict[int, ThreadPoolExecutor] = {}
"""One thread for each process: it does not survive a fork."""


def _pool() -> ThreadPoolExecutor:
    return _POOLS.setdefault(os.getpid(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards"))
