"""A user's images in memory, as a classifier takes them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

MOST_BYTES = 1 << 29
_SEED = 17


def some(count: int, always: Tensor, side: int) -> Tensor:
    """Which of so many images are read: all, or, where they are too large for that, some at random; int64, ascending.

    Args:
        count: of the images.
        always: bool [count], those that are among them in any case.
        side: of an image as it is read, in pixels.
    """
    most = max(MOST_BYTES // (3 * side**2), int(always.sum()))
    order = torch.randperm(count, generator=Generator().manual_seed(_SEED))
    first = torch.cat([order[always[order]], order[~always[order]]])
    return first[:most].sort().values
