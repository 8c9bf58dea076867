"""BadNets as in D-ST and D-BR (Chen et al., NeurIPS 2022), all-to-one: a 3x3 motif in the bottom right corner.

    x' = p on the patch, x elsewhere,  p = 0   0   255
                                           0   255 0
                                           255 0   255

For 224 pixels, the authors use a white square instead: that is `badnets_square` with a target and no margin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.poisoning.attack import Chosen
from refine.poisoning.overlay import MOTIF, PatchAttack, PatchParams, motif

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Params(PatchParams):
    """Attributes:
    rate: poisoned fraction of the images of all classes except the target.
    patch_side: height and width of the patch in pixels, to which the motif is enlarged without smoothing; by default
        3 on images of 32 pixels, in proportion on others, and at least 3.
    """


class Attack(PatchAttack[Params]):
    """Poisons images of other classes than the target."""

    chooses_from = "other classes"

    def published_side(self) -> int:
        return max(len(MOTIF), super().published_side())

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"pattern": motif(self.patch_side)}
