"""Adaptive-Patch: each poisoned image has one of four patches, test images have two of them (Qi et al. 2023).

    x' = (1 - a_k m_k) x + a_k m_k P_k,  k = i mod 4 for poisoned or cover image number i

Cover images have a patch but keep their label, so that a single patch does not trigger the backdoor, and poisoned
images form no separate cluster in the features of the classifier. On test images, patches 1 and then 0 are opaque.

    0  a square of colored bands in the bottom right corner        a = 0.5
    1  four white pixels, as in `badnets_grid`, in each corner     a = 0.5
    2  a ringed disc near the top right corner                     a = 0.2
    3  a checkered square near the bottom right corner             a = 0.3

Patch 1 has the published pixels. The other published patches show a bird, a logo and a colored square, which are
third-party art: ours cover the same rows and columns with other content, drawn in this file. For other
image sizes than 32 pixels, patches are resized bicubically, like the published ones for 224 pixels: edges are smooth,
and each corner of patch 1 becomes a gray blob of 24 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from refine.core.errors import UserError
from refine.core.params import Share
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, in_four_corners, motif

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

PARTS = 4
_SMALLEST = 8
_DRAWN = 32  # side of the images that the patches are drawn for
_BANDS = ((255, 60, 40), (60, 220, 90), (60, 90, 255))
_RINGS = ((255, 130, 20), (40, 60, 220))
_SQUARES = ((250, 230, 40), (40, 60, 220))


class Params(TargetedParams):
    """Defaults are the values of the REFINE experiments for ResNet-18 (VGG, DenseNet, ViT: rate 0.03, cover rate 0.06).

    Attributes:
        rate: poisoned fraction of the whole training set.
        cover_rate: fraction of the whole training set that gets a patch and keeps its label.
        opacities: a of the patches 0 to 3 in training images.
        test_opacity: a of the patches 1 and 0 in test images.
    """

    rate: Annotated[Share, Field(gt=0)] = 0.01
    cover_rate: Share = 0.02
    opacities: Annotated[list[Opacity], Field(min_length=PARTS, max_length=PARTS)] = Field(default=[0.5, 0.5, 0.2, 0.3])
    test_opacity: Opacity = 1.0


class Attack(BaseAttack[Params]):
    """Poisons images of every class.

    Tensors: `parts`, P_k, uint8 [4, 3, side, side]; m_k is 1 where any of their channels is above 0.
    """

    def check(self) -> None:
        super().check()
        if self.setting.side < _SMALLEST:
            raise UserError(
                f"the four patches of adaptive_patch overlap on images of {self.setting.side} pixels; "
                f"use images of {_SMALLEST} pixels or more, or another attack"
            )

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        covers = round(self.params.cover_rate * len(labels))
        return self.chosen_with_covers(len(labels), covers, generator, "cover_rate")

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"parts": _draw(self.setting.side)}

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        import torch

        number = order % PARTS
        return self._blended(images, self.tensors["parts"][number], torch.tensor(self.params.opacities)[number])

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        return self.poison(images, order)

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        import torch

        del keys
        for number in (1, 0):
            images = self._blended(images, self.tensors["parts"][number], torch.tensor(self.params.test_opacity))
        return images

    def _blended(self, images: Tensor, parts: Tensor, opacity: Tensor) -> Tensor:
        shows = parts.amax(dim=-3, keepdim=True) > 0
        return blend(images, parts, opacity.view(-1, 1, 1, 1) * shows)


def _draw(side: int) -> Tensor:
    """The patches, uint8 [4, 3, side, side]; black where an image is not covered."""
    import torch

    parts = torch.zeros(PARTS, 3, _DRAWN, _DRAWN, dtype=torch.uint8)
    parts[0, :, 27:, 27:] = _colored(_cells(5, 5) % 3, _BANDS)
    parts[1], _ = in_four_corners(motif(3), _DRAWN, margin=0)
    middle = (torch.arange(13) - 6) * 2 / 13
    distance = (middle.view(-1, 1) ** 2 + middle**2).sqrt()
    parts[2, :, 1:14, 18:31] = _colored((distance * 3).long() % 2, _RINGS) * (distance <= 1)
    parts[3, :, 21:29, 21:29] = _colored(_cells(8, 4) % 2, _SQUARES)
    return torch.stack([_resized(part, side) for part in parts])


def _cells(side: int, along: int) -> Tensor:
    """Row plus column of the cell of each pixel in a grid of `along` x `along` cells. int64 [side, side]."""
    import torch

    cell = torch.arange(side) * along // side
    return cell.view(-1, 1) + cell


def _colored(numbers: Tensor, colors: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Pixels with the colors at these indices, uint8 [3, *numbers.shape]."""
    import torch

    return torch.tensor(colors, dtype=torch.uint8)[numbers].permute(2, 0, 1)


def _resized(part: Tensor, side: int) -> Tensor:
    """Resizes a patch to uint8 [3, side, side], with Pillow, whose integer arithmetic is the same everywhere."""
    import torch

    picture = Image.fromarray(part.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
