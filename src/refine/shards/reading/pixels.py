"""Images in memory: uint8 where they rest, float in [0, 1] where they are used.

At rest the memory order is rows, channels, columns. Augmentation multiplies along rows and along columns, and in
this order both products run over contiguous memory; the tensor still reads as [N, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def empty_images(count: int, side: int) -> Tensor:
    """Room for images, uint8 [count, 3, side, side] in the memory order of images at rest."""
    return torch.empty((count, side, 3, side), dtype=torch.uint8).permute(0, 2, 1, 3)


def at_rest(images: Tensor) -> Tensor:
    """The same images in the memory order of images at rest."""
    return images.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float in [0, 1], in the same memory order."""
    return images.to(torch.float32).div_(255)


def in_batches(images: Tensor, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """All images in their order, as pixels float in [0, 1] on the device, channels-last."""
    for start in range(0, len(images), batch_size):
        pixels = to_pixels(images[start : start + batch_size].to(device))
        yield pixels.contiguous(memory_format=torch.channels_last)
