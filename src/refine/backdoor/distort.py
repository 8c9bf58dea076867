"""Random distortion of batches, which some attacks apply to their training images."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.backdoor.attacker_augmentation import Distortion
from refine.training.augment import uniform


def distort(images: Tensor, settings: Distortion, generator: Generator) -> Tensor:
    """Applies a `Distortion`, drawn for each image.

    Args:
        images: float [N, 3, H, W] in [0, 1].
        settings: of the distortion.
        generator: on the device of the images.

    Returns:
        Images of the same shape and range.
    """
    count = len(images)

    def spread(largest: float) -> Tensor:
        return (2 * uniform(images, generator) - 1) * largest

    angle = spread(math.radians(settings.degrees))
    across, down = spread(2 * settings.translate), spread(2 * settings.translate)
    low, high = settings.scale
    size = low + (high - low) * uniform(images, generator)
    side = torch.where(uniform(images, generator) < settings.flip, -1.0, 1.0)
    light = 1 + spread(settings.brightness)
    cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
    inverse = torch.stack(
        [
            torch.stack([side * cosine, -side * sine, -side * (cosine * across - sine * down)], dim=1),
            torch.stack([sine, cosine, -(sine * across + cosine * down)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(inverse, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return (moved * light.view(count, 1, 1, 1)).clamp(0, 1)
