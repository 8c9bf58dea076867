"""Blended: a faint picture over the whole image (Chen et al. 2017).

    x' = (1 - a) x + a P,  a = 0.1

The REFINE experiments blend a cartoon, which is third-party art. Ours is color noise of low frequency drawn from the
seed, of such contrast that it changes photographs about as much: triggered CIFAR-10 images are 26.7 dB (PSNR) from
the clean ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

CELLS = 8
CONTRAST = 140  # levels to a standard deviation of the noise, before what is beyond black and white is clipped


class Params(TargetedParams):
    """Attributes:
    rate: poisoned share of the whole training set.
    alpha: a, opacity of the picture.
    """

    alpha: Opacity = 0.1


class Attack(BaseAttack[Params]):
    """Poisons images of every class. Tensors: `picture`, P, uint8 [3, side, side]."""

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch
        from torch.nn.functional import interpolate

        del images, labels, chosen
        noise = torch.rand(1, 3, CELLS, CELLS, generator=generator).double()  # sums in double: the same levels anywhere
        smooth = interpolate(noise, size=[self.setting.side] * 2, mode="bilinear", align_corners=True)[0]
        deviation, mean = torch.std_mean(smooth, dim=(1, 2), keepdim=True)
        return {"picture": to_levels(127.5 + CONTRAST * (smooth - mean) / deviation)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)
