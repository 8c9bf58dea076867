"""Random numbers that belong to an image: keyed by a seed and a hash of its pixels.

A deployed model knows neither the place of an image in a data set nor its batch. So the same image is always answered
in the same way, alone or in company, and nobody who does not know the seed can foresee how.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Generator, Tensor

_LEVELS = 255


def keys(pixels: Tensor, seed: int) -> list[int]:
    """A number below 2**63 for each image.

    Args:
        pixels: float [N, 3, H, W] in [0, 1]; hashed as bytes, so that rounding on a device changes nothing.
        seed: of the defense.
    """
    levels = (pixels.detach().clamp(0, 1) * _LEVELS).round().to(torch.uint8).contiguous().cpu().numpy()
    secret = seed.to_bytes(8, "little")
    digests = (blake2b(image.tobytes(), digest_size=8, key=secret).digest() for image in levels)
    return [int.from_bytes(digest, "little") >> 1 for digest in digests]


def integers(pixels: Tensor, seed: int, below: int, count: int) -> Tensor:
    """Uniform whole numbers from 0 to `below` - 1, int64 [N, count] on the CPU, the same for the same image."""
    drawn = [torch.randint(below, (count,), generator=Generator().manual_seed(key)) for key in keys(pixels, seed)]
    return torch.stack(drawn) if drawn else torch.zeros(0, count, dtype=torch.int64)
