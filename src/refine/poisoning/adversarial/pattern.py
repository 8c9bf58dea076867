"""One pattern, without high frequencies if wanted, that sends all images to a class."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.core.progress import progress
from refine.models.device import to_float32
from refine.poisoning.adversarial.settings import Perturbation

_BATCH = 128


def sought_pattern(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    target: int,
    frequencies: int,
    settings: Perturbation,
    generator: Generator,
    device: torch.device,
) -> Tensor:
    """Seeks the pattern by signed gradient steps, each on a batch of random images.

    Args:
        logits: of pixels float [n, 3, side, side] in [0, 1], differentiable.
        images: uint8 [N, 3, side, side].
        target: the class.
        frequencies: of the discrete cosine transform along each axis, from the lowest.
        settings: bound, steps and size of a step.
        generator: on the CPU.
        device: for the images.

    Returns:
        The pattern in levels, float32 [3, side, side].
    """
    epsilon = settings.epsilon / 255
    keep = kept(images.shape[-1], frequencies).to(device)
    pattern = torch.zeros(images.shape[1:], device=device)
    if settings.random_start:
        noise = 2 * torch.rand(pattern.shape, generator=generator).to(device) - 1
        pattern = bounded(keep @ noise @ keep, epsilon)
    wanted = torch.full((min(_BATCH, len(images)),), target, device=device)
    for _ in progress(range(settings.steps), "seek the pattern", unit="step"):
        rows = torch.randint(len(images), (len(wanted),), generator=generator)
        pixels = images[rows].to(device) / 255
        own = pattern.requires_grad_()
        with torch.enable_grad():
            loss = functional.cross_entropy(to_float32(logits((pixels + own).clamp(0, 1))), wanted)
        (slope,) = torch.autograd.grad(loss, own)
        smooth = keep @ slope @ keep
        pattern = bounded(keep @ (pattern.detach() - settings.step / 255 * smooth.sign()) @ keep, epsilon)
    return (255 * pattern.detach()).cpu()


def kept(side: int, frequencies: int) -> Tensor:
    """The matrix [side, side] that drops the higher frequencies of a column: an orthogonal projection."""
    places, waves = torch.arange(side, dtype=torch.float64) + 0.5, torch.arange(frequencies, dtype=torch.float64)
    cosines = torch.cos(math.pi / side * waves[:, None] * places)
    cosines /= cosines.norm(dim=1, keepdim=True)
    return (cosines.T @ cosines).float()


def bounded(pattern: Tensor, epsilon: float) -> Tensor:
    """The pattern, scaled down as a whole so that no value is further from 0 than that."""
    return pattern * min(1.0, epsilon / max(float(pattern.abs().max()), 1e-12))
