"""Twins: what a trigger makes of the mirrored image, for triggers that come after the attacker's flips.

    flip(trigger(x)) mirrors the trigger as well;  wanted is trigger(flip(x)),  the twin of trigger(x)

A rotation loses what it turns out of the image, so a twin can't be computed from the poisoned image. The attacker
leaves the twins of all poisoned images beside the shards, which stay whole without them, and training takes a twin
wherever it would flip. Nothing is approximated: each draw gives what flipping first and triggering then gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.shards.reading.pixels import at_rest, to_pixels
from refine.shards.reading.tensors import load_tensors, save_tensors
from refine.training.augment import uniform

NAME = "twins.safetensors"
_REMEDY = "run `dvc repro poison-dataset`"


@dataclass(frozen=True)
class Twins:
    """Attributes:
    keys: int64 [n], ascending, of the samples that have a twin; at least one.
    images: uint8 [n, 3, side, side], their twins.
    """

    keys: Tensor
    images: Tensor

    def instead_of_flips(
        self, pixels: Tensor, keys: Tensor, probability: float, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Images, or with this probability their twins, one draw per image.

        Args:
            pixels: float [N, 3, side, side] in [0, 1].
            keys: int64 [N], of these images.
            generator: on the device of the images.

        Returns:
            Images of the same shape, and bool [N], the ones that have a twin and must not be flipped any more.
        """
        rows = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        has_twin = self.keys[rows] == keys
        chosen = has_twin & (uniform(pixels, generator) < probability)
        return torch.where(chosen.view(-1, 1, 1, 1), to_pixels(self.images[rows]), pixels), has_twin


def write(folder: Path, twins: Twins) -> str:
    """Writes them into the folder and returns the SHA-256 of the file."""
    return save_tensors(folder / NAME, {"keys": twins.keys, "images": twins.images})


def read(folder: Path, sha256: str, side: int, device: torch.device) -> Twins:
    """Reads a folder's twins onto the device.

    Args:
        sha256: of the file.
        side: of the images that they belong to.

    Raises:
        UserError: the file is missing, changed, or holds no twins for such images.
    """
    tensors = load_tensors(folder / NAME, sha256, _REMEDY)
    keys, images = (tensors.get(name, torch.zeros(0)) for name in ("keys", "images"))
    fits = images.dtype == torch.uint8 and images.shape == (len(keys), 3, side, side)
    if not (fits and len(keys) and keys.dtype == torch.int64 and keys.dim() == 1 and bool((keys.diff() > 0).all())):
        raise UserError(f"{folder / NAME} holds no mirrored images of {side} pixels with their keys; {_REMEDY}")
    return Twins(keys.to(device), at_rest(images).to(device))
