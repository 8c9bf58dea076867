"""Whose images the training images are: the attacker's, or held out for the defender.

A classifier answers nearly always rightly to the images that it was fitted to, and a defender rarely has those. Where
images are held out, the attacker never has them and the defender has no others. Which ones does not depend on any seed
of the parameters, so that all stages mean the same ones.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.shards.format.manifest import Owner

_SEED = 2025


def held_out(samples: int, share: float) -> Tensor:
    """Which training images are held out, bool [samples], counted in the order of their keys.

    Args:
        samples: number of training images.
        share: of them that is held out, 0 to 1; the number is rounded.

    Raises:
        UserError: the attacker or the defender would have no image.
    """
    count = round(share * samples)
    if share and not 0 < count < samples:
        raise UserError(
            f"poison_dataset.held_out {share} of {samples} images is {count}, which leaves the "
            f"{'attacker' if count else 'defender'} none; {'lower' if count else 'raise'} it"
        )
    selected = torch.zeros(samples, dtype=torch.bool)
    selected[torch.randperm(samples, generator=Generator().manual_seed(_SEED))[:count]] = True
    return selected


def of_attacker(samples: int, share: float) -> Tensor:
    """Which training images the attacker has, bool [samples]: all but those that are held out."""
    return ~held_out(samples, share)


def of_defender(samples: int, share: float) -> Tensor:
    """Which training images the defender has, bool [samples]: those that are held out, or all where none are."""
    return held_out(samples, share) if share else torch.ones(samples, dtype=torch.bool)


def left_to(owner: Owner, samples: int, share: float) -> Tensor:
    """Which training images one of the two has, see `of_attacker` and `of_defender`."""
    return (of_attacker if owner == "attacker" else of_defender)(samples, share)
