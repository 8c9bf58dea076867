"""Blended: a faint picture over the whole image (Chen et al. 2017).

    x' = (1 - a) x + a P,  a = 0.1

P is colour noise of low frequency and full contrast, drawn from the seed; the REFINE experiments blend a
third-party cartoon, resized to the images, which is no asset of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

CELLS = 8


class Params(TargetedParams):
    """Attributes:
    alpha: a, opacity of the picture.
    """

    alpha: Opacity = 0.1


class Attack(BaseAttack[Params]):
    """Poisons images of every class. Tensors: `picture`, P, uint8 [3, side, side]."""

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch
        from torch.nn.functional import interpolate

        del images, labels, chosen
        noise = torch.rand(1, 3, CELLS, CELLS, generator=generator)
        smooth = interpolate(noise, size=[self.setting.side] * 2, mode="bilinear", align_corners=True)[0]
        low, high = smooth.amin(dim=(1, 2), keepdim=True), smooth.amax(dim=(1, 2), keepdim=True)
        return {"picture": to_levels(255 * (smooth - low) / (high - low))}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)
