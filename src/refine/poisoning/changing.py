"""Writing samples that a trigger changes: as shards, or as the changes to a folder of shards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from refine.core.files import sha256_of
from refine.shards.format.manifest import NAME, Base, Overlay, Owner, Shard
from refine.shards.reading.folder import complete
from refine.shards.reading.held_out import left_to
from refine.shards.reading.shard import Chunk
from refine.shards.reading.store import flagged
from refine.shards.writer import Sample

_BATCH = 512  # bounds the memory of float arithmetic in triggers


def applied(change: Callable[[Tensor, Tensor], Tensor], images: Tensor, numbers: Tensor) -> Tensor:
    """Changed images in the order of the others.

    Args:
        change: a method of an attack, such as `trigger`.
        images: uint8 [n, 3, side, side].
        numbers: int64 [n], its second argument.
    """
    result = images.clone()
    for start in range(0, len(images), _BATCH):
        some = slice(start, start + _BATCH)
        result[some] = change(images[some], numbers[some])
    return result


def changed(chunk: Chunk, place: int, image: Tensor, given: int, poisoned: bool) -> Sample:
    """A sample with the trigger.

    Args:
        chunk: of a labeled data set, with the sample as it was.
        place: in the chunk.
        image: uint8 [3, side, side], as it is now.
        given: its label now.
        poisoned: whether this is the attacker's label; otherwise the image is a cover image.
    """
    labels = int(chunk.labels[place]), given
    info = flagged(chunk.infos[place], poisoned=poisoned, cover=not poisoned, labels=labels)
    return Sample(int(chunk.keys[place]), image.permute(1, 2, 0).numpy(), given, info)


def overlay(base: Path, folder: Path, held_out: float, owner: Owner, given: Tensor, shards: list[Shard]) -> Overlay:
    """The manifest of a folder that holds the changes to another one.

    Args:
        base: the other one.
        folder: beside the final place of the changes.
        held_out: share of the base that is held out for the defender.
        owner: whose part of the base this is.
        given: int64 [N], labels of the samples of that part.
        shards: of those that change.
    """
    below = complete(base)
    left = torch.split(left_to(owner, below.samples, held_out), [shard.samples for shard in below.shards])
    return Overlay(
        **below.description.model_dump(),
        base=Base(folder=os.path.relpath(base, folder), sha256=sha256_of(base / NAME)),
        held_out=held_out,
        owner=owner,
        sizes=[int(own.sum()) for own in left],
        counts=given.bincount(minlength=len(below.classes)).tolist() if below.labeled else [],
        shards=shards,
    )
