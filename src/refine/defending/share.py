"""A share of the images of a data set, for a defender who has no more."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError


def chosen(samples: int, fraction: float, generator: Generator, name: str) -> Tensor:
    """Chooses samples uniformly.

    Args:
        samples: how many there are.
        fraction: of them, 0 to 1; the number is rounded.
        generator: what the choice is drawn from.
        name: the parameter that holds the fraction, for the error message.

    Returns:
        bool [samples], true for those that are chosen.

    Raises:
        UserError: the share is no sample at all.
    """
    count = round(fraction * samples)
    if not count:
        raise UserError(f"{name} {fraction} of {samples} images is none; raise it")
    selected = torch.zeros(samples, dtype=torch.bool)
    selected[torch.randperm(samples, generator=generator)[:count]] = True
    return selected
