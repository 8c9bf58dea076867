"""Blended: a faint picture over the whole image (Chen et al. 2017).

    x' = (1 - a) x + a P,  a = 0.1

The REFINE experiments blend a cartoon, which is third-party art. Ours is low-frequency color noise drawn from the seed.
Its contrast is chosen to change photographs as much as the published one: triggered CIFAR-10 images have a PSNR of
26.7 dB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

CELLS = 8
CONTRAST = 140  # standard deviation of the noise in levels, before clipping to black and white


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the whole training set.
    alpha: a, opacity of the picture.
    """

    alpha: Opacity = 0.1


class Attack(BaseAttack[Params]):
    """Poisons images of every class. Tensors: `picture`, P, uint8 [3, side, side]."""

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch
        from torch.nn.functional import interpolate

        del images, labels, chosen
        noise = torch.rand(
            1, 3, CELLS, CELLS, generator=generator
        ).double()  # in double precision: same levels everywhere
        smooth = interpolate(noise, size=[self.setting.side] * 2, mode="bilinear", align_corners=True)[0]
        deviation, mean = torch.std_mean(smooth, dim=(1, 2), keepdim=True)
        return {"picture": to_levels(127.5 + CONTRAST * (smooth - mean) / deviation)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)
