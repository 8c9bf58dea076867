"""Oracle: a split that is told which images are poisoned, to find out what a defense makes of a good or a bad one.

For experiments alone: nobody who has to defend a classifier knows this. A share `purity` of the poisoned group is
poisoned, the rest of it and the clean group are drawn from the images that are not. The FCT says 0, 1 and 2 for the
three groups.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.core.params import Share
from refine.shards.reading.stored import open_split
from refine.splitting.groups import CLEAN, POISONED, UNCERTAIN, sizes
from refine.splitting.params import SplitParams
from refine.splitting.protocol import Outcome, Task


class Params(SplitParams):
    """Attributes:
    purity: share of the poisoned group that is poisoned.
    clean_purity: share of the clean group that is not poisoned.
    """

    purity: Share = 1.0
    clean_purity: Share = 1.0


def split(task: Task) -> Outcome:
    """See `splitting.protocol`.

    Raises:
        UserError: there are not enough poisoned images, or not enough others.
    """
    params: Params = task.settings
    poisoned = open_split(task.images, task.compute.machine).images.flags("poisoned")
    of = sizes(len(poisoned), params)
    draws = Generator().manual_seed(params.seed)
    true, false = (_shuffled(poisoned == value, draws) for value in (True, False))
    right, wrong = round(params.purity * of.poisoned), of.clean - round(params.clean_purity * of.clean)
    _refuse_too_few(true, right + wrong, "poisoned images", "purity or alpha_p, or raise clean_purity")
    _refuse_too_few(false, of.clean - wrong + of.poisoned - right, "other images", "alpha_c or alpha_p")
    groups = torch.full((len(poisoned),), UNCERTAIN)
    groups[torch.cat([true[:right], false[: of.poisoned - right]])] = POISONED
    rest = of.poisoned - right
    groups[torch.cat([true[right : right + wrong], false[rest : rest + of.clean - wrong]])] = CLEAN
    return Outcome(groups.float(), groups)


def _shuffled(which: Tensor, draws: Generator) -> Tensor:
    """The rows where bool [N] is true, in random order."""
    rows = which.nonzero().flatten()
    return rows[torch.randperm(len(rows), generator=draws)]


def _refuse_too_few(rows: Tensor, wanted: int, what: str, remedy: str) -> None:
    if len(rows) < wanted:
        raise UserError(
            f"the training set has {len(rows)} {what}, and the split wants {wanted}; lower {remedy} "
            "in split_settings.oracle"
        )
