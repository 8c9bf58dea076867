"""Random augmentation of whole batches on their device, one draw per image, from an explicit generator.

Crops, shifts and flips act on rows and columns apart, so all of them together are two small matrix products:
`rows @ image @ columns^T` with a sampling matrix per image. In the memory order of images at rest (`data.pixels`)
both run over contiguous memory. The distributions are torchvision's (tests compare).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from refine.params.recipe import Augment

_LUMA = (0.2989, 0.587, 0.114)
_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def augment(images: Tensor, settings: Augment, generator: Generator) -> Tensor:
    """Random resized crop, shift, flip and greying, in this order (spec 1.5 and 1.7).

    Args:
        images: float [N, 3, H, W] in [0, 1].
        settings: what is on and how strong.
        generator: on the device of the images.

    Returns:
        Images of the same shape in channels-last memory order.
    """
    images = _resample(images, settings, generator).contiguous(memory_format=torch.channels_last)
    if settings.grayscale:
        chosen = (uniform(images, generator) < settings.grayscale).view(-1, 1, 1, 1)
        grey = (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        images = torch.where(chosen, grey, images)
    return images


def _resample(images: Tensor, settings: Augment, generator: Generator) -> Tensor:
    if settings.crop_scale == 1 and not settings.shift and not settings.flip:
        return images
    count, _, height, width = images.shape
    if settings.crop_scale == 1 and not settings.shift:
        mirrored = uniform(images, generator) < settings.flip
        return torch.where(mirrored.view(count, 1, 1, 1), images.flip(3), images)
    top, left, tall, wide = _boxes(images, settings.crop_scale, generator)
    rows = _matrix(top, tall, height)
    columns = _matrix(left, wide, width)
    if settings.shift:
        rows = _shifted(rows, settings.shift, generator)
        columns = _shifted(columns, settings.shift, generator)
    if settings.flip:
        mirrored = uniform(images, generator) < settings.flip
        columns = torch.where(mirrored.view(count, 1, 1), columns.flip(1), columns)
    resting = images.permute(0, 2, 1, 3).reshape(count, height, 3 * width)
    tall_enough = torch.bmm(rows, resting).view(count, 3 * height, width)
    return torch.bmm(tall_enough, columns.transpose(1, 2)).view(count, height, 3, width).permute(0, 2, 1, 3)


def _boxes(images: Tensor, scale: float, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a random crop for each image, whole pixels as float [N].

    As torchvision's RandomResizedCrop: ten attempts at an area and a log-uniform aspect, the whole image (for
    square ones) when none of them fits.
    """
    count, _, height, width = images.shape
    if scale == 1:
        zero, one = images.new_zeros(count), images.new_ones(count)
        return zero, zero, one * height, one * width
    draws = torch.rand((2, count, _ATTEMPTS), generator=generator, device=images.device)
    area = height * width * (scale + (1 - scale) * draws[0])
    low, high = (math.log(ratio) for ratio in _RATIO)
    aspect = torch.exp(low + (high - low) * draws[1])
    wide, tall = torch.sqrt(area * aspect).round(), torch.sqrt(area / aspect).round()
    fits = (wide <= width) & (tall <= height) & (wide > 0) & (tall > 0)
    first = fits.int().argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    wide = torch.where(any_fits, wide.gather(1, first)[:, 0], images.new_tensor(float(width)))
    tall = torch.where(any_fits, tall.gather(1, first)[:, 0], images.new_tensor(float(height)))
    top = (uniform(images, generator) * (height - tall + 1)).floor()
    left = (uniform(images, generator) * (width - wide + 1)).floor()
    return top, left, tall, wide


def _matrix(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Matrices float [N, side, side] that enlarge the pixels [start, start + length) to `side`, bilinearly.

    The same as cropping and then `interpolate(mode="bilinear", align_corners=False)`; a crop is only ever
    enlarged, so antialiasing (which torchvision switched on in 0.17) makes no difference.
    """
    places = torch.arange(side, device=start.device, dtype=start.dtype)
    at = (places + 0.5) * (length / side).view(-1, 1) - 0.5
    at = at.clamp(min=0).minimum(length.view(-1, 1) - 1) + start.view(-1, 1)
    distance = (at.unsqueeze(2) - places).abs()
    return (1 - distance).clamp(min=0)


def _shifted(matrix: Tensor, largest: int, generator: Generator) -> Tensor:
    """Moves the output by -largest..largest pixels, uniformly; what comes in from outside is black."""
    count, side, _ = matrix.shape
    by = torch.randint(-largest, largest + 1, (count, 1), generator=generator, device=matrix.device)
    from_row = torch.arange(side, device=matrix.device) + by
    inside = (from_row >= 0) & (from_row < side)
    moved = matrix.gather(1, from_row.clamp(0, side - 1).unsqueeze(2).expand_as(matrix))
    return moved * inside.unsqueeze(2)


def uniform(images: Tensor, generator: Generator) -> Tensor:
    """One draw from [0, 1) per image, float [N]."""
    return torch.rand(len(images), generator=generator, device=images.device)
