"""BadNets: a small patch in the bottom right corner (Gu et al. 2017).

    x' = x * (1 - m) + p * m,  m = 1 on the patch

On images of 32 pixels, the patch is the gray 3x3 texture of the REFINE experiments. Patches of other sizes are gray
noise drawn from the seed: the texture of the experiments' 20-pixel patch for 224 pixels was not published.
"""

from __future__ import annotations

from refine.poisoning.overlay import PatchParams, TextureAttack


class Params(PatchParams):
    """Attributes:
    rate: poisoned fraction of the whole training set.
    patch_side: height and width of the patch in pixels; by default 3 on images of 32 pixels, 20 on 224, in proportion
        on others.
    """


class Attack(TextureAttack[Params]):
    """Poisons images of every class."""
