"""The random transformation that FCT is measured with: a rotation, then a translation, the rest black.

As torchvision's RandomRotation and RandomAffine, one after the other, with the nearest pixel: what the rotation takes
out of the frame does not come back by the translation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draws:
    """One transformation for each of N images.

    Attributes:
        angles: in radians, float [N].
        shifts: across and down, whole pixels as float [N, 2].
    """

    angles: Tensor
    shifts: Tensor

    def __getitem__(self, rows: slice) -> Draws:
        return Draws(self.angles[rows], self.shifts[rows])

    def to(self, device: torch.device) -> Draws:
        """The same on a device."""
        return Draws(self.angles.to(device), self.shifts.to(device))


def drawn(count: int, side: int, degrees: float, share: float, generator: Generator) -> Draws:
    """Draws a transformation for each image.

    Args:
        count: N.
        side: of the images, in pixels.
        degrees: largest rotation to either side.
        share: of the side, largest translation in each direction.
        generator: on the CPU.
    """
    spread = 2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1
    return Draws((spread[:, 0] * math.radians(degrees)).float(), (spread[:, 1:] * share * side).round().float())


def transformed(pixels: Tensor, by: Draws) -> Tensor:
    """Turns and moves images.

    Args:
        pixels: float [N, 3, H, W].
        by: of these images, on their device.

    Returns:
        The same shape, channels-last.
    """
    count, channels, height, width = pixels.shape
    down = torch.arange(height, device=pixels.device).view(1, -1, 1) - by.shifts[:, 1].view(-1, 1, 1)
    across = torch.arange(width, device=pixels.device).view(1, 1, -1) - by.shifts[:, 0].view(-1, 1, 1)
    inside = _inside(down, height) & _inside(across, width)
    down, across = down - (height - 1) / 2, across - (width - 1) / 2
    cosine, sine = by.angles.cos().view(-1, 1, 1), by.angles.sin().view(-1, 1, 1)
    row = (cosine * down + sine * across + (height - 1) / 2).round()
    column = (cosine * across - sine * down + (width - 1) / 2).round()
    inside = inside & _inside(row, height) & _inside(column, width)
    places = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().view(count, 1, -1)
    taken = pixels.flatten(2).gather(2, places.expand(-1, channels, -1)).view(pixels.shape)
    return (taken * inside.unsqueeze(1)).contiguous(memory_format=torch.channels_last)


def _inside(places: Tensor, side: int) -> Tensor:
    return (places >= 0) & (places < side)
