"""Inverting a trigger: the smallest patch that sends images to a class (Wang et al., Neural Cleanse, S&P 2019).

    minimize over m, p:  CE(F((1 - m) x + m p), t) + c |m|_1

The mask m, in [0, 1], is shared by the channels; m and p are sigmoids of what is optimized. The weight c rises while
the images of a step reach the class and falls, faster, while they do not, so that the mask shrinks to where it just
still works.

How small a mask is found depends on the step at which one looks, and differently for each class. So the area of a class
is a mean over the second half of the search, of the logarithm of the smallest mask so far that succeeded.

Ours: that mean; the weight changes at each step and not after several steps of success; the mask begins small and even
instead of random; |m|_1 counts as on 32x32 pixels whatever the side; images that the classifier answers t to anyway are
left out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from refine.core.bounds import BatchSize
from refine.core.params import Number, PositiveNumber, Section
from refine.models.device import to_float32

BETAS = (0.5, 0.9)
"""Of Adam, as published."""
WINDOW = 10
"""Steps over which a mask has to succeed; the largest mask among them counts."""
_PIXELS = 32 * 32
_START = -1.0
_FALLS_FASTER = 1.5
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-7, 10.0
MAD_OF_NORMAL = 1.4826
"""Makes the MAD of normally distributed numbers their standard deviation."""
LEAST_CLASSES = 5
"""Of fewer numbers, a median says little."""
LEAST_SPREAD = 0.5
"""A factor of 1.6: without a backdoor, areas can differ by less."""


class Search(Section):
    """How a trigger is sought, for each class.

    Attributes:
        steps: of the optimization.
        batch_size: images in a step.
        lr: learning rate of Adam; published.
        weight: c at first; published.
        factor: by which c rises.
        success: share of the images that a trigger has to send to the class; published are 0.99 and, later, 0.98.
    """

    steps: Annotated[int, Field(ge=10, le=100_000)] = 100
    batch_size: BatchSize = 32
    lr: PositiveNumber = 0.1
    weight: PositiveNumber = 1e-3
    factor: Annotated[Number, Field(gt=1, le=10)] = 1.1
    success: Annotated[Number, Field(gt=0, le=1)] = 0.98


@dataclass(frozen=True)
class Inverted:
    """A trigger.

    Attributes:
        area: share of the image that the mask covers, a geometric mean over the second half of the search of the
            smallest mask so far that succeeded; it counts as 1 before one did.
        least: share of the image that the smallest mask covers that succeeded; 1 if none did.
        objective: mean over the last steps of the cross entropy, and of the mask's size weighed as at first.
        succeeded: whether a mask did.
        mask: the best, or else the last one, float32 [1, H, W].
        pattern: likewise, float32 [3, H, W].
    """

    area: float
    least: float
    objective: float
    succeeded: bool
    mask: Tensor
    pattern: Tensor


def invert(
    logits: Callable[[Tensor], Tensor], pixels: Tensor, target: int, search: Search, generator: Generator
) -> Inverted:
    """Inverts a trigger for one class.

    Args:
        logits: of pixels float [N, 3, H, W] in [0, 1]; differentiable.
        pixels: images that are not of the class, on the device, at least one.
        target: the class.
        search: how.
        generator: on the CPU.
    """
    height, width = pixels.shape[-2:]
    raw_mask = torch.full((1, height, width), _START, device=pixels.device, requires_grad=True)
    noise = 0.5 * torch.randn(3, height, width, generator=generator)
    raw_pattern = noise.to(pixels.device).requires_grad_()
    optimizer = torch.optim.Adam([raw_mask, raw_pattern], lr=search.lr, betas=BETAS)
    window: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)  # hits, area, objective
    weight, best = search.weight, None
    order = rows(len(pixels), search.batch_size, generator)
    course = []
    for _ in range(search.steps):
        mask, pattern = raw_mask.sigmoid(), raw_pattern.sigmoid()
        some = pixels[next(order).to(pixels.device)]
        stamped = some * (1 - mask) + mask * pattern
        answers = to_float32(logits(stamped.contiguous(memory_format=torch.channels_last)))
        entropy = functional.cross_entropy(answers, torch.full((len(some),), target, device=pixels.device))
        size = _PIXELS * mask.mean()
        optimizer.zero_grad()
        (entropy + weight * size).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        hits = (answers.detach().argmax(dim=1) == target).double().mean().item()
        window.append((hits, mask.mean().item(), (entropy + search.weight * size).item()))
        if len(window) == WINDOW and sum(each[0] for each in window) / WINDOW >= search.success:
            area = max(each[1] for each in window)
            if best is None or area < best[0]:
                best = (area, mask.detach(), pattern.detach())
        course.append(0.0 if best is None else math.log(best[0]))
        enough = hits >= search.success
        weight = weight * search.factor if enough else weight / search.factor**_FALLS_FASTER
        weight = min(max(weight, _LEAST_WEIGHT), _MOST_WEIGHT)
    half = course[len(course) // 2 :]
    least, mask, pattern = best or (1.0, raw_mask.detach().sigmoid(), raw_pattern.detach().sigmoid())
    objective = sum(each[2] for each in window) / len(window)
    return Inverted(math.exp(sum(half) / len(half)), least, objective, best is not None, mask.cpu(), pattern.cpu())


def anomaly(areas: dict[int, float], references: Sequence[int]) -> dict[int, float]:
    """The anomaly index of each class.

    Args:
        areas: shares of the image, above 0, by class.
        references: classes that the median and the MAD are taken from.
    """
    logs = {target: torch.tensor(area, dtype=torch.float64).log() for target, area in areas.items()}
    compared = torch.stack([logs[target] for target in references])
    median = compared.quantile(0.5)
    spread = max(MAD_OF_NORMAL * (compared - median).abs().quantile(0.5).item(), LEAST_SPREAD)
    return {target: (median - value).item() / spread for target, value in logs.items()}


def rows(count: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Rows of batches without end, int64: one random order after the other, each without a smaller last batch."""
    size = min(count, batch_size)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
