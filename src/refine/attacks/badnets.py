"""BadNets: a small patch in the bottom right corner (Gu et al. 2017).

    x' = x * (1 - m) + p * m,  m = 1 on the patch

On 32 pixels the patch is the fixed grey 3x3 texture of the REFINE experiments; on other sides it is a seeded
random texture of the given size (20 pixels at 224 in the paper, whose texture was not published).
"""

from __future__ import annotations

from refine.poisoning.overlay import PatchParams, TextureAttack


class Params(PatchParams):
    """Rate of the whole training set; left out, `patch_side` is 3 at 32 pixels, 20 at 224, in proportion else."""


class Attack(TextureAttack[Params]):
    """Poisons images of every class."""
