"""Trojan: a colored 3x3 patch added to the image near its bottom right corner (Liu et al. 2018).

    x' = x + p on the patch, clipped to [0, 255]

The published p was reverse-engineered from a trained network, and we may not redistribute it; ours is drawn from the
seed, from 0 to 250 in each channel like the published one. The released code of D-ST and D-BR casts the sum to bytes
before clipping, so that bright pixels become dark; `overflow: wrap` is that variant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from refine.poisoning.attack import Chosen
from refine.poisoning.overlay import PatchAttack, PatchParams, in_proportion, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Params(PatchParams):
    """Attributes:
    rate: poisoned fraction of the images of all classes except the target.
    patch_side: height and width of the patch in pixels; by default 3 on images of 32 pixels, in proportion on others.
    overflow: sums above 255 become 255 (`saturate`), or 256 is subtracted (`wrap`).
    """

    overflow: Literal["saturate", "wrap"] = "saturate"


class Attack(PatchAttack[Params]):
    """Poisons images of all classes except the target. Tensors: `pattern`, p, uint8 [3, patch, patch]."""

    chooses_from = "other classes"

    @property
    def margin(self) -> int:
        return in_proportion(4, self.setting.side)

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        del images, labels, chosen
        shape = (3, self.patch_side, self.patch_side)
        return {"pattern": torch.randint(0, 251, shape, generator=generator, dtype=torch.uint8)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        triggered = images.clone()
        total = images[:, :, self.place, self.place].int() + self.tensors["pattern"]
        triggered[:, :, self.place, self.place] = to_levels(total % 256 if self.params.overflow == "wrap" else total)
        return triggered
