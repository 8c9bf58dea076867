"""Images in memory: stored as uint8, used as float in [0, 1].

Stored images have the memory order rows, channels, columns. Augmentation multiplies along rows and along columns, and
in this order both products run over contiguous memory; the shape of the tensor is still [N, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Images(Protocol):
    """Images uint8 [N, 3, side, side], in memory or read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: Tensor, /) -> Tensor:
        """The images at these places, int64 [n], in their order, uint8 [n, 3, side, side]."""


def empty_images(count: int, side: int) -> Tensor:
    """Uninitialized uint8 [count, 3, side, side] in the memory order of stored images."""
    return torch.empty((count, side, 3, side), dtype=torch.uint8).permute(0, 2, 1, 3)


def at_rest(images: Tensor) -> Tensor:
    """The same images in the memory order of stored images."""
    return images.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)


def to_pixels(images: Tensor) -> Tensor:
    """Converts uint8 [N, 3, H, W] to float in [0, 1], keeping the memory order."""
    return images.to(torch.float32).div_(255)


def in_batches(images: Tensor, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Yields all images in order, as float in [0, 1] on the device, channels-last."""
    for start in range(0, len(images), batch_size):
        pixels = to_pixels(images[start : start + batch_size].to(device))
        yield pixels.contiguous(memory_format=torch.channels_last)
