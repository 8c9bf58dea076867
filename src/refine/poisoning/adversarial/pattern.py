"""One pattern, without high frequencies if wanted, that sends all images to a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.core.progress import progress
from refine.models.device import to_float32

_BATCH = 128
_TINY = 1e-12


class Bound(Protocol):
    """How far a pattern may go, and how it moves; pixels are in [0, 1]."""

    def move(self, slope: Tensor) -> Tensor:
        """The step along a gradient, of its shape."""

    def within(self, pattern: Tensor) -> Tensor:
        """The pattern, scaled down as a whole until it is allowed."""


@dataclass(frozen=True)
class Box:
    """A bound of each value, in levels of 255, and steps along the sign of the gradient.

    Attributes:
        epsilon: the bound.
        size: of a step.
    """

    epsilon: float
    size: float

    def move(self, slope: Tensor) -> Tensor:
        return self.size / 255 * slope.sign()

    def within(self, pattern: Tensor) -> Tensor:
        return pattern * min(1.0, self.epsilon / 255 / max(float(pattern.abs().max()), _TINY))


@dataclass(frozen=True)
class Ball:
    """A bound of the Euclidean length, and steps of the same length along the gradient.

    Attributes:
        radius: the bound.
        size: of a step.
    """

    radius: float
    size: float

    def move(self, slope: Tensor) -> Tensor:
        return self.size * slope / max(float(slope.norm()), _TINY)

    def within(self, pattern: Tensor) -> Tensor:
        return pattern * min(1.0, self.radius / max(float(pattern.norm()), _TINY))


def sought_pattern(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    target: int,
    frequencies: int,
    bound: Bound,
    steps: int,
    generator: Generator,
    device: torch.device,
    random_start: bool = False,
) -> Tensor:
    """Seeks the pattern by gradient steps, each on a batch of random images.

    Args:
        logits: of pixels float [n, 3, side, side] in [0, 1], differentiable.
        images: uint8 [N, 3, side, side].
        target: the class.
        frequencies: of the discrete cosine transform along each axis, from the lowest.
        bound: of the pattern.
        steps: how many.
        generator: on the CPU.
        device: for the images.
        random_start: start from a random pattern instead of none.

    Returns:
        The pattern in levels, float32 [3, side, side].
    """
    keep = kept(images.shape[-1], frequencies).to(device)
    pattern = torch.zeros(images.shape[1:], device=device)
    if random_start:
        noise = 2 * torch.rand(pattern.shape, generator=generator).to(device) - 1
        pattern = bound.within(keep @ noise @ keep)
    wanted = torch.full((min(_BATCH, len(images)),), target, device=device)
    for _ in progress(range(steps), "seek the pattern", unit="step"):
        rows = torch.randint(len(images), (len(wanted),), generator=generator)
        pixels = images[rows].to(device) / 255
        own = pattern.requires_grad_()
        with torch.enable_grad():
            loss = functional.cross_entropy(to_float32(logits((pixels + own).clamp(0, 1))), wanted)
        (slope,) = torch.autograd.grad(loss, own)
        pattern = bound.within(keep @ (pattern.detach() - bound.move(keep @ slope @ keep)) @ keep)
    return (255 * pattern.detach()).cpu()


def kept(side: int, frequencies: int) -> Tensor:
    """The matrix [side, side] that drops the higher frequencies of a column: an orthogonal projection."""
    places, waves = torch.arange(side, dtype=torch.float64) + 0.5, torch.arange(frequencies, dtype=torch.float64)
    cosines = torch.cos(math.pi / side * waves[:, None] * places)
    cosines /= cosines.norm(dim=1, keepdim=True)
    return (cosines.T @ cosines).float()
