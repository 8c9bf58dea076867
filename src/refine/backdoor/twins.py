"""Twins: poisoned images whose clean image was flipped first, for triggers that are applied after the flip.

    flip(trigger(x)) would also flip the trigger;  the twin of trigger(x) is trigger(flip(x))

A rotation discards the corners of an image, so a twin cannot be computed from the poisoned image. So the attack stores
the twins of all poisoned images beside the shards, and training uses a twin wherever it would flip a poisoned image.
This is exact: each draw gives the same image as flipping first and applying the trigger afterwards.
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
    keys: int64 [n], n >= 1, ascending; of the samples that have a twin.
    images: uint8 [n, 3, side, side], their twins.
    """

    keys: Tensor
    images: Tensor

    def instead_of_flips(
        self, pixels: Tensor, keys: Tensor, probability: float, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Replaces images by their twins with this probability, drawn for each image.

        Args:
            pixels: float [N, 3, side, side] in [0, 1].
            keys: int64 [N], of the images.
            probability: of a flip.
            generator: on the device of the images.

        Returns:
            Images of the same shape, and a mask, bool [N], of those that have a twin and must not be flipped again.
        """
        rows = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        has_twin = self.keys[rows] == keys
        chosen = has_twin & (uniform(pixels, generator) < probability)
        return torch.where(chosen.view(-1, 1, 1, 1), to_pixels(self.images[rows]), pixels), has_twin


def write(folder: Path, twins: Twins) -> str:
    """Writes twins into a folder and returns the SHA-256 of the file."""
    return save_tensors(folder / NAME, {"keys": twins.keys, "images": twins.images})


def read(folder: Path, sha256: str, side: int, device: torch.device) -> Twins:
    """Reads twins from a folder, onto the device.

    Args:
        folder: of the file.
        sha256: of the file.
        side: expected height and width.
        device: of the tensors.

    Raises:
        UserError: the file is missing, changed, or does not hold twins of this size.
    """
    tensors = load_tensors(folder / NAME, sha256, _REMEDY)
    keys, images = (tensors.get(name, torch.zeros(0)) for name in ("keys", "images"))
    fits = images.dtype == torch.uint8 and images.shape == (len(keys), 3, side, side)
    if not (fits and len(keys) and keys.dtype == torch.int64 and keys.dim() == 1 and bool((keys.diff() > 0).all())):
        raise UserError(f"{folder / NAME} holds no mirrored images of {side} pixels with their keys; {_REMEDY}")
    return Twins(keys.to(device), at_rest(images).to(device))
