"""Training under faint patterns that are drawn for each image.

An encoder that begins with the classifier's weights, or learns its features, may follow a pattern that lies faintly
over the whole image, as that of Blended. Nobody has to know which: under noise of all sizes and other images, the
encoder learns to answer as without them. The classifier is asked for the images as they are, as its answers to those
with a pattern may tell where its backdoor leads (docs/results.md). After Rusak et al. (ECCV 2020, "A Simple Way to Make
Neural Networks Robust Against Diverse Image Corruptions"), who train with noise of each value alone; ours are the
larger noise, the other images, and that only some of the images have a pattern.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.training.augment import uniform

_OVERLAID = 0.5
"""Probability that an image gets a pattern."""
_NOISE = 0.5
"""Probability that this is noise; else it is another image of the batch."""
_DRAWN = 16
"""Patterns of noise that are drawn for a batch."""
_CELLS = (2, 32)
"""Fewest and most cells of noise in a row; between their centers, values are interpolated."""
_CONTRAST = 0.5
"""Standard deviation of noise, of values in [0, 1], before it is cut to them."""


def overlaid(pixels: Tensor, most: float, generator: Generator) -> Tensor:
    """The images, about half of them under a faint pattern.

    x' = (1 - a) x + a P, a drawn from [0, `most`) and P drawn from noise and the other images

    Args:
        pixels: float [N, 3, H, W] in [0, 1].
        most: largest opacity of a pattern.
        generator: on the device of the images.

    Returns:
        Images of the same shape and range, in channels-last memory order.
    """
    count, device = len(pixels), pixels.device
    others = pixels[torch.randperm(count, generator=generator, device=device)]
    drawn = torch.stack([_noise(pixels.shape[1:], generator) for _ in range(_DRAWN)]).to(pixels.dtype)
    noise = drawn[torch.randint(len(drawn), (count,), generator=generator, device=device)]
    noisy, has_one, opacity = (uniform(pixels, generator).view(-1, 1, 1, 1) for _ in range(3))
    patterns = torch.where(noisy < _NOISE, noise, others)
    opacity = torch.where(has_one < _OVERLAID, opacity * most, 0)
    return torch.lerp(pixels, patterns, opacity).contiguous(memory_format=torch.channels_last)


def _noise(shape: torch.Size, generator: Generator) -> Tensor:
    """Colored noise of a random size, float [3, H, W] in [0, 1]."""
    fewest, most = _CELLS
    cells = int(torch.randint(fewest, most + 1, (), generator=generator, device=generator.device))
    values = torch.rand(1, shape[0], cells, cells, generator=generator, device=generator.device)
    noise = functional.interpolate(values, size=tuple(shape[1:]), mode="bilinear", align_corners=True)[0]
    deviation, mean = torch.std_mean(noise, dim=(1, 2), keepdim=True)
    return (0.5 + _CONTRAST * (noise - mean) / deviation).clamp(0, 1)
