"""The three groups of a split: the images that look most clean, those that look most poisoned, and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.splitting.params import SplitParams

CLEAN, UNCERTAIN, POISONED = range(3)
NAMES = ("clean", "uncertain", "poisoned")


@dataclass(frozen=True)
class Sizes:
    """Images of the clean and of the poisoned group."""

    clean: int
    poisoned: int


def sizes(samples: int, params: SplitParams) -> Sizes:
    """How many images each group takes: `int(alpha * samples)`, as published.

    Raises:
        UserError: a group would be empty.
    """
    for name in ("alpha_c", "alpha_p"):
        share = getattr(params, name)
        if not int(share * samples):
            raise UserError(f"{name} {share} of {samples} images is none; raise it in split_settings")
    return Sizes(int(params.alpha_c * samples), int(params.alpha_p * samples))


def ranked(fct: Tensor, of: Sizes) -> Tensor:
    """The images with the least values are clean, those with the largest poisoned; ties by their places.

    Args:
        fct: float [N], see `refine.splits.sd`.
        of: the groups; both together have at most N images.

    Returns:
        int64 [N], `CLEAN`, `UNCERTAIN` or `POISONED`.
    """
    order = fct.argsort(stable=True)
    groups = torch.full((len(fct),), UNCERTAIN)
    groups[order[: of.clean]] = CLEAN
    groups[order[len(fct) - of.poisoned :]] = POISONED
    return groups
