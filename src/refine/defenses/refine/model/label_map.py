"""The fixed remapping of output labels (Chen et al., ICLR 2025)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def derangement(num_classes: int, seed: int) -> Tensor:
    """A random permutation without fixed point, int64 [K].

    Shuffles the identity until no class stays in its place. NumPy's legacy generator makes it the one of the
    public log for seed 666 and ten classes: 5 7 0 9 3 4 8 1 6 2.

    Args:
        num_classes: K, at least 2.
        seed: of the shuffles.
    """
    random = np.random.RandomState(seed)
    identity = np.arange(num_classes)
    permutation = identity.copy()
    while (permutation == identity).any():
        random.shuffle(permutation)
    return torch.from_numpy(permutation)


def inverted(permutation: Tensor) -> Tensor:
    """The permutation that leads back, int64 [K] to int64 [K]: to answer y, the classifier has to say inverse[y]."""
    return torch.argsort(permutation)


def remap(scores: Tensor, permutation: Tensor) -> Tensor:
    """Moves the score of class j, a probability or a logit, to place permutation[j], float [N, K] to float [N, K].

    The direction matters: to answer y, the frozen classifier has to say the class j with permutation[j] = y.
    """
    return remap_by(scores, inverted(permutation))


def remap_by(scores: Tensor, inverse: Tensor) -> Tensor:
    """The same by the inverse of the permutation, which is computed once: an exported graph need not sort then."""
    return scores.index_select(1, inverse)
