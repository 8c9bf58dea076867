"""Three disjoint parts of a user's images: for planting, for defending, for measuring."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Generator

from refine.core.errors import UserError
from refine.proof.stress.params import Parts
from refine.shards.reading.reader import Split


@dataclass(frozen=True)
class Divided:
    """The images of each part, in the order of their keys."""

    planting: Split
    defending: Split
    measuring: Split


def divided(images: Split, parts: Parts, seed: int, least_to_defend: int = 0) -> Divided:
    """Divides images at random.

    Args:
        images: all of them.
        parts: the shares.
        seed: of the draw.
        least_to_defend: images that the defense needs.

    Raises:
        UserError: a part would have too few images.
    """
    count = len(images.images)
    sizes = sizes_of(count, parts, least_to_defend)
    order = torch.randperm(count, generator=Generator().manual_seed(seed))
    made = []
    for rows in torch.split(order[: sum(sizes)], sizes):
        selected = torch.zeros(count, dtype=torch.bool)
        selected[rows] = True
        made.append(images.subset(selected))
    return Divided(*made)


def sizes_of(count: int, parts: Parts, least_to_defend: int = 0) -> list[int]:
    """How many of so many images each part gets, see `divided`.

    Raises:
        UserError: a part would have too few.
    """
    shares = {name: getattr(parts, name) for name in Divided.__dataclass_fields__}
    least = {name: max(parts.least, least_to_defend if name == "defending" else 0) for name in shares}
    needed = max(math.ceil(least[name] / share) for name, share in shares.items())
    sizes = [math.floor(share * count) for share in shares.values()]
    if any(size < least[name] for name, size in zip(shares, sizes, strict=True)):
        told = ", ".join(f"{least[name]} for {name}" for name in shares)
        raise UserError(
            f"the stress test needs {needed} images or more, and there are {count}: it divides them into parts, and "
            f"needs {told}; add images, or change the shares in stress.parts"
        )
    return sizes


def sum_of(images: Split) -> str:
    """SHA-256 over the pixels and the keys of images."""
    digest = hashlib.sha256(images.keys.numpy().tobytes())
    for image in images.images:
        digest.update(image.contiguous().numpy().tobytes())
    return digest.hexdigest()
