"""CLP, channel Lipschitzness pruning (Zheng et al., ECCV 2022, "Data-free Backdoor Removal based on Channel
Lipschitzness"): channels that may amplify their input far more than the others of their layer are removed.

For channel c of a convolution with filter W_c (as a matrix [inputs, k²]) and of the batch normalization after it, with
scale g_c and running variance v_c, the bound L_c is

    L_c = largest singular value of W_c · |g_c| / √(v_c + eps).

Channels with L_c above mean + u · standard deviation of their layer are removed. No image is used. Among n channels,
none is more than (n - 1) / √n standard deviations above the mean, so at u = 3 a layer needs 11 channels to lose one.

Pairs are found in the graph of the network: a batch normalization, and the convolution whose output it alone takes,
right away or after pooling. A channel is removed by setting scale and shift of its batch normalization to zero. Where
there are none (`airbench`), filter, bias and running mean are set to zero, which makes the normalized output zero as
well; a shift in a layer of its own stays, and what follows sees a constant.

The official code leaves out eps, so that a channel that is always zero (v_c = 0) makes all bounds of its layer
undefined. It also pairs convolutions and batch normalizations by the order of modules, which is wrong in
pre-activation networks.
"""

from __future__ import annotations

from pathlib import Path

from refine.core.params import Section, Weight
from refine.defending import repaired
from refine.defending.repaired import Repaired

NAME = "clp"


class Params(Section):
    """Attributes:
    u: standard deviations above the mean of its layer from which a channel is removed.
    """

    u: Weight = 3.0


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "CLP"
    regime = "none"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
