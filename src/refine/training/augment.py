"""Random augmentation of whole batches on their device, one draw per image, from an explicit generator.

Crops, shifts and flips act on rows and columns apart, so all of them together are two small matrix products:
`rows @ image @ columns^T` with a sampling matrix per image. In the memory order of images at rest
(`shards.reading.pixels`) both run over contiguous memory. The distributions are torchvision's (tests compare).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from refine.training.color import grayed, jittered
from refine.training.recipe import Augment

_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def augment(images: Tensor, settings: Augment, generator: Generator, unflipped: Tensor | None = None) -> Tensor:
    """Random resized crop, shift, flip, change of colors, graying and cutout, in this order.

    Crops, shifts and flips treat all channels alike. So graying comes first where no colors are changed, because it
    then costs the chosen images alone.

    Args:
        images: float [N, 3, H, W] in [0, 1].
        settings: what is on and how strong.
        generator: on the device of the images.
        unflipped: bool [N], images that no flip reaches.

    Returns:
        Images of the same shape in channels-last memory order.
    """
    resting = images.permute(0, 2, 1, 3)
    gray = None
    if settings.grayscale:
        gray = (uniform(images, generator) < settings.grayscale).nonzero().flatten()
    if gray is not None and not settings.jitter:
        resting = grayed(resting, gray)
    resting = _resampled(resting, settings, generator, unflipped)
    if settings.jitter:
        resting = jittered(resting, settings.jitter, generator)
        resting = resting if gray is None else grayed(resting, gray)
    if settings.cutout:
        resting = resting * _outside_squares(resting, settings.cutout, generator)
    return resting.permute(0, 2, 1, 3).contiguous(memory_format=torch.channels_last)


def _resampled(resting: Tensor, settings: Augment, generator: Generator, unflipped: Tensor | None) -> Tensor:
    """Images float [N, H, 3, W], cropped, shifted and flipped."""
    if settings.crop_scale == 1 and not settings.shift and not settings.flip:
        return resting
    count, height, _, width = resting.shape
    if settings.crop_scale == 1 and not settings.shift:
        mirrored = _flips(resting, settings.flip, generator, unflipped).nonzero().flatten()
        return resting.index_copy(0, mirrored, resting[mirrored].flip(3))
    top, left, tall, wide = _boxes(resting, settings.crop_scale, generator)
    rows = _matrix(top, tall, height, _shifts(resting, settings.shift, generator))
    columns = _matrix(left, wide, width, _shifts(resting, settings.shift, generator))
    if settings.flip:
        mirrored = _flips(resting, settings.flip, generator, unflipped)
        columns = torch.where(mirrored.view(count, 1, 1), columns.flip(1), columns)
    across = torch.bmm(rows, resting.reshape(count, height, 3 * width)).view(count, 3 * height, width)
    return torch.bmm(across, columns.transpose(1, 2)).view(count, height, 3, width)


def _flips(resting: Tensor, probability: float, generator: Generator, unflipped: Tensor | None) -> Tensor:
    """Which images are mirrored, bool [N]."""
    drawn = uniform(resting, generator) < probability
    return drawn if unflipped is None else drawn & ~unflipped


def _boxes(resting: Tensor, scale: float, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a random crop for each image, whole pixels as float [N].

    As torchvision's RandomResizedCrop: ten attempts at an area and a log-uniform aspect, the whole image (for
    square ones) when none of them fits.
    """
    count, height, _, width = resting.shape
    if scale == 1:
        zero, one = resting.new_zeros(count), resting.new_ones(count)
        return zero, zero, one * height, one * width
    draws = torch.rand((2, count, _ATTEMPTS), generator=generator, device=resting.device)
    area = height * width * (scale + (1 - scale) * draws[0])
    low, high = (math.log(ratio) for ratio in _RATIO)
    aspect = torch.exp(low + (high - low) * draws[1])
    wide, tall = torch.sqrt(area * aspect).round(), torch.sqrt(area / aspect).round()
    fits = (wide <= width) & (tall <= height) & (wide > 0) & (tall > 0)
    first = fits.int().argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    wide = torch.where(any_fits, wide.gather(1, first)[:, 0], resting.new_tensor(float(width)))
    tall = torch.where(any_fits, tall.gather(1, first)[:, 0], resting.new_tensor(float(height)))
    top = (uniform(resting, generator) * (height - tall + 1)).floor()
    left = (uniform(resting, generator) * (width - wide + 1)).floor()
    return top, left, tall, wide


def _matrix(start: Tensor, length: Tensor, side: int, by: Tensor | None = None) -> Tensor:
    """Matrices float [N, side, side] that enlarge the pixels [start, start + length) to `side`, bilinearly.

    The same as cropping and then `interpolate(mode="bilinear", align_corners=False)`; a crop is only ever
    enlarged, so antialiasing (which torchvision switched on in 0.17) makes no difference.

    Args:
        start: float [N], whole numbers; likewise length.
        length: 1 to side.
        side: of the image, in pixels.
        by: float [N], whole numbers: what was at place p + by comes to place p, black from outside.
    """
    places = torch.arange(side, device=start.device, dtype=start.dtype)
    wanted = places if by is None else places + by.view(-1, 1)
    at = (wanted + 0.5) * (length / side).view(-1, 1) - 0.5
    at = at.clamp(min=0).minimum(length.view(-1, 1) - 1) + start.view(-1, 1)
    matrix = (1 - (at.unsqueeze(2) - places).abs_()).clamp_(min=0)
    if by is not None:
        matrix *= ((wanted >= 0) & (wanted < side)).unsqueeze(2)
    return matrix


def _outside_squares(resting: Tensor, side: int, generator: Generator) -> Tensor:
    """0 in a square of each image, 1 outside (DeVries and Taylor, 2017); float [N, H, 1, W] for [N, H, 3, W]."""
    count, height, _, width = resting.shape

    def inside(length: int) -> Tensor:
        first = torch.randint(0, length, (count, 1), generator=generator, device=resting.device) - side // 2
        places = torch.arange(length, device=resting.device)
        return (places >= first) & (places < first + side)

    return 1 - (inside(height).view(count, height, 1, 1) & inside(width).view(count, 1, 1, width)).to(resting.dtype)


def _shifts(images: Tensor, largest: int, generator: Generator) -> Tensor | None:
    """By how many pixels each image moves, -largest..largest, uniformly; float [N], None for 0."""
    if not largest:
        return None
    by = torch.randint(-largest, largest + 1, (len(images),), generator=generator, device=images.device)
    return by.to(images.dtype)


def uniform(images: Tensor, generator: Generator) -> Tensor:
    """One draw from [0, 1) per image, float [N]."""
    return torch.rand(len(images), generator=generator, device=images.device)
