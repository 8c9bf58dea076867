"""BadNets: a small patch in the bottom right corner (Gu et al. 2017).

    x' = x * (1 - m) + p * m,  m = 1 on the patch

On 32 pixels the patch is the gray 3x3 texture of the REFINE experiments. Patches of other sizes are gray noise drawn
from the seed: at 224 pixels the experiments have one of 20 pixels, whose texture was not published.
"""

from __future__ import annotations

from refine.poisoning.overlay import PatchParams, TextureAttack


class Params(PatchParams):
    """Attributes:
    rate: poisoned share of the whole training set.
    patch_side: height and width of the patch in pixels; left out, 3 at 32 pixels, 20 at 224, in proportion else.
    """


class Attack(TextureAttack[Params]):
    """Poisons images of every class."""
