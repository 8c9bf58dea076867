"""Adaptive-Patch: a part of the trigger on each poisoned image, all of it at test (Qi et al. 2023).

    x' = (1 - a_k m_k) x + a_k m_k P_k,  k = i mod 4 for poisoned or cover image number i

Cover images carry a part and keep their label, so that no part alone is enough and poisoned images do not gather
in the classifier's features. At test parts 1 and then 0 are drawn opaque. The published parts are third-party
art; these have their places, sizes and opacities and are drawn by our own code:

    0  a square of coloured bands in the bottom right corner     a = 0.5
    1  white, the grid motif's diagonal in each of the corners   a = 0.5
    2  a ringed disc near the top right corner                   a = 0.2
    3  a chequered square near the bottom right corner           a = 0.3
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refine.params.reading import Share
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, in_four_corners, motif
from refine.system.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

PARTS = 4
_SMALLEST = 8
# Published on 32 and on 224 pixels: how high and wide each part is (part 1 in each corner), and how far from its edges.
_SIDES = {32: (5, 3, 13, 8), 224: (38, 30, 97, 62)}
_MARGINS = {32: (0, 0, 1, 3), 224: (0, 0, 4, 18)}
_BANDS = ((255, 60, 40), (60, 220, 90), (60, 90, 255))
_RINGS = ((255, 130, 20), (40, 60, 220))
_SQUARES = ((250, 230, 40), (40, 60, 220))


class Params(TargetedParams):
    """The paper's values for ResNet-18; for VGG, DenseNet and ViT it takes 0.03 and 0.06.

    Attributes:
        rate: poisoned share of the whole training set.
        cover_rate: share of the whole training set that carries a part and keeps its label.
        opacities: a of the four parts in training images.
        test_opacity: a of both parts in test images.
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
                f"the four parts of adaptive_patch overlap on images of {self.setting.side} pixels; "
                f"give images of {_SMALLEST} or more, or choose another attack"
            )

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        import torch

        rows = torch.randperm(len(labels), generator=generator)
        poisoned = self.count(len(rows))
        both = poisoned + round(self.params.cover_rate * len(rows))
        if both > len(rows):
            raise UserError(
                f"{poisoned} poisoned and {both - poisoned} cover images are more than the {len(rows)} there are; "
                "lower attacks.adaptive_patch.rate or attacks.adaptive_patch.cover_rate"
            )
        return Chosen(rows[:poisoned], rows[poisoned:both])

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
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
    """The parts, uint8 [4, 3, side, side]; black where they do not cover."""
    import torch

    base = 32 if side <= 64 else 224
    bands, corner, disc, squares = (max(1, round(pixels * side / base)) for pixels in _SIDES[base])
    _, _, above, below = (round(pixels * side / base) for pixels in _MARGINS[base])
    parts = torch.zeros(PARTS, 3, side, side, dtype=torch.uint8)

    parts[0, :, side - bands :, side - bands :] = _coloured(_cells(bands, 5) % 3, _BANDS)

    parts[1], _ = in_four_corners(motif(max(3, corner)), side, margin=0)

    middle = (torch.arange(disc) - (disc - 1) / 2) * 2 / disc
    distance = (middle.view(-1, 1) ** 2 + middle**2).sqrt()
    rings = _coloured((distance * 3).long() % 2, _RINGS) * (distance <= 1)
    parts[2, :, above : above + disc, side - above - disc : side - above] = rings

    low = side - below - squares
    parts[3, :, low : low + squares, low : low + squares] = _coloured(_cells(squares, 4) % 2, _SQUARES)
    return parts


def _cells(side: int, along: int) -> Tensor:
    """Row plus column of the cell of each pixel, where so many cells share the side. int64 [side, side]."""
    import torch

    cell = torch.arange(side) * along // side
    return cell.view(-1, 1) + cell


def _coloured(numbers: Tensor, colours: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Pixels in the colours of these numbers, uint8 [3, *numbers.shape]."""
    import torch

    return torch.tensor(colours, dtype=torch.uint8)[numbers].permute(2, 0, 1)
