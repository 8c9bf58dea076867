"""Whether the FCT tells two kinds of images apart, without knowing which are which."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

LEAST_ENRICHED = 2.0
"""How much more frequent the most separated label has to be in the poisoned group than among all images. Where the
poisoned images of a class have the smaller FCT of the two kinds, it is rarer instead: on digits, it is 0.0 to 1.5 times
as frequent with the attack blended, and 2.4 to 5.0 times with badnets."""
LEAST = 3.0
"""Separation from which the gate lets a split pass. Two equally wide normal distributions have two modes from 2 on
(Ashman et al. 1994, "Detecting bimodality in astronomical datasets"). Classes of digits without poison have up
to 2.5, in the first epochs up to 3.1; one with poison that FCT tells apart has 2.7 to 5.4."""
_FEWEST = 20
"""Images of a class that are worth a look."""
_SMALLEST = 0.05
"""Share of a class that counts as a kind of its own, and not as a few odd images."""
_FLOOR = 1e-12


def separation(fct: Tensor, labels: Tensor) -> tuple[float, int]:
    """The largest separation within the images of one given label: poisoned ones among the clean ones.

    Over all classes together, poisoned images are too few for a mode of their own, and classes differ in their FCT. But
    most attacks give all poisoned images one label, where they are about as many as the others.

    Args:
        fct: float [N], at least 0.
        labels: int64 [N], as given.

    Returns:
        Ashman's D of log FCT, at least 0; 0 where no class has enough images. And the label.
    """
    logs = fct.double().clamp(min=_FLOOR).log10().numpy()
    return max((_ashman(logs[(labels == label).numpy()]), label) for label in sorted(set(labels.tolist())))


def enrichment(labels: Tensor, group: Tensor, label: int) -> float:
    """How much more frequent a label is in a group than among all images.

    Args:
        labels: int64 [N].
        group: bool [N], not all of them false.
        label: occurs.
    """
    has = (labels == label).double()
    return float(has[group].mean() / has.mean())


def _ashman(values: NDArray[np.float64]) -> float:
    """sqrt(2) |m1 - m2| / sqrt(s1^2 + s2^2) of a mixture of two normal distributions."""
    if len(values) < _FEWEST or np.ptp(values) == 0:
        return 0.0
    with threadpool_limits(1):
        fitted = GaussianMixture(2, random_state=0).fit(values[:, None])
    if fitted.weights_.min() < _SMALLEST:
        return 0.0
    (first, second), variances = fitted.means_[:, 0], fitted.covariances_[:, 0, 0]
    return float(math.sqrt(2) * abs(first - second) / math.sqrt(variances.sum()))
