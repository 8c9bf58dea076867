"""The images that a defender without labels has.

They are those of the data set, or the part of it that is held out, or those of another source; and a few of them may
have the trigger, where a defender collects images that the attacker has access to. (Defenders with labels have clean
images of the data set, whose labels they would not have given to an image with a trigger.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.core.progress import progress
from refine.poisoning.attack import NONE, AnyAttack
from refine.poisoning.changing import applied, changed, overlay
from refine.shards.reading.store import flagged
from refine.shards.reading.stored import StoredSplit
from refine.shards.writer import Sample, put_shard, write_shards, writing

_PARAMETER = "poison_dataset.contaminated"
_APART = 2**31
"""A bit of the seed: with the seed as it is, the draw would be that of the images that the attacker poisons."""


@dataclass(frozen=True)
class Defender:
    """What a defender has.

    Attributes:
        images: all of them, without the trigger.
        contaminated: share of them that gets it.
        base: folder of the data set whose training images these are; None where they come from another source.
        held_out: share of that data set that only the defender has.
    """

    images: StoredSplit
    contaminated: float
    base: Path | None
    held_out: float

    @property
    def triggered(self) -> int:
        """How many of the images get the trigger."""
        return round(self.contaminated * len(self.images.keys))


def refuse_unfit(defender: Defender, attack: AnyAttack, name: str) -> None:
    """Stops before anything is written for images that do not fit.

    Args:
        defender: what the defender has.
        attack: that the classifier is attacked by.
        name: of the attack.

    Raises:
        UserError: images of another source have another size, or a share is to get a trigger that picks no image or
            that the attack does not have.
    """
    manifest, side = defender.images.manifest, attack.setting.side
    if manifest.side != side:
        raise UserError(
            f"the images of {manifest.source} have a side of {manifest.side} pixels and those of the data set {side}; "
            f"take a source of {side} for other_images, or set sources.{manifest.source}.side where it has that setting"
        )
    if not defender.contaminated:
        return
    if name == NONE:
        raise UserError(f"the attack {name} has no trigger for a share of the defender's images; set {_PARAMETER} to 0")
    if not defender.triggered:
        count = len(defender.images.keys)
        raise UserError(f"{_PARAMETER} {defender.contaminated} picks none of {count} images; raise it, or set it to 0")


def write_images(folder: Path, defender: Defender, attack: AnyAttack, seed: int) -> None:
    """Writes the images: those of the data set as changes to it, those of another source whole.

    Images of another source are without labels, and tell nothing of where they come from but the source. The flag
    `cover` says which images have the trigger: like the cover images of an attack, they keep their label.

    Args:
        folder: empty, beside the final one.
        defender: what the defender has.
        attack: with its tensors.
        seed: of the choice of images that get the trigger.

    Raises:
        UserError: a shard is damaged.
    """
    images = defender.images
    order = torch.randperm(len(images.keys), generator=Generator().manual_seed(seed ^ _APART))
    triggered = torch.zeros(len(images.keys), dtype=torch.bool)
    triggered[order[: defender.triggered]] = True
    if defender.base is None:
        write_shards(
            folder,
            _whole(images, triggered, attack),
            images.manifest.description.model_copy(update={"labeled": False}),
        )
        return
    shards = []
    for name, chunk in images.images.chunks(triggered.nonzero().flatten()):
        shown = applied(attack.trigger, chunk.images, chunk.keys)
        labels = chunk.labels.tolist()
        samples = [changed(chunk, place, shown[place], labels[place], poisoned=False) for place in range(len(shown))]
        shards.append(put_shard(writing(folder), name, samples, images.manifest.labeled))
    overlay(defender.base, folder, defender.held_out, "defender", images.labels, shards).write(folder)


def _whole(split: StoredSplit, triggered: Tensor, attack: AnyAttack) -> Iterator[Sample]:
    """All images, with consecutive keys from 0."""
    key = 0
    rows = torch.arange(len(split.keys))
    for _, chunk in progress(split.images.chunks(rows), "write the defender's images", unit="shard"):
        images, own = chunk.images.clone(), triggered[key : key + len(chunk.keys)]
        if own.any():
            images[own] = applied(attack.trigger, chunk.images[own], chunk.keys[own])
        for image, has_it in zip(images.permute(0, 2, 3, 1).numpy(), own.tolist(), strict=True):
            yield Sample(key, image, 0, flagged({}, poisoned=False, cover=has_it, labels=None))
            key += 1
