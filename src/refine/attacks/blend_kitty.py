"""Blend-Kitty: a faint picture of a cat over the whole image, as in D-ST and D-BR (Chen et al., NeurIPS 2022).

    x' = (1 - a) x + a P,  a = 0.2

The published P is a cartoon, which is third-party art. Ours is the face of a black cat on white, drawn from ellipses
and triangles. Its contrast is chosen to change photographs as much as the published one: triggered CIFAR-10 images have
a PSNR of 19 dB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

BLACK, WHITE, GREEN, PINK = (0, 0, 0), (255, 255, 255), (60, 255, 0), (255, 0, 80)
# Colors and shapes, drawn in this order, in a unit square with its origin in the top left corner: center (x, y) and
# semi-axes of an ellipse, or the corners of a triangle.
SHAPES = (
    (BLACK, ((0.12, 0.06), (0.46, 0.28), (0.14, 0.56))),
    (BLACK, ((0.88, 0.06), (0.54, 0.28), (0.86, 0.56))),
    (PINK, ((0.18, 0.16), (0.36, 0.28), (0.20, 0.44))),
    (PINK, ((0.82, 0.16), (0.64, 0.28), (0.80, 0.44))),
    (BLACK, ((0.5, 0.58), (0.41, 0.36))),
    (WHITE, ((0.5, 0.76), (0.22, 0.16))),
    (WHITE, ((0.32, 0.53), (0.11, 0.09))),
    (WHITE, ((0.68, 0.53), (0.11, 0.09))),
    (GREEN, ((0.32, 0.53), (0.08, 0.08))),
    (GREEN, ((0.68, 0.53), (0.08, 0.08))),
    (BLACK, ((0.32, 0.53), (0.03, 0.08))),
    (BLACK, ((0.68, 0.53), (0.03, 0.08))),
    (PINK, ((0.43, 0.66), (0.57, 0.66), (0.5, 0.74))),
    (BLACK, ((0.5, 0.82), (0.09, 0.02))),
)


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the images of all classes except the target.
    alpha: a, opacity of the picture.
    """

    alpha: Opacity = 0.2


class Attack(BaseAttack[Params]):
    """Poisons images of all classes except the target. Tensors: `picture`, P, uint8 [3, side, side]."""

    chooses_from = "other classes"

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"picture": draw(self.setting.side)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)


def draw(side: int) -> Tensor:
    """The cat, uint8 [3, side, side]."""
    import torch

    across = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    down = across.view(-1, 1)
    picture = torch.full((3, side, side), 255, dtype=torch.uint8)
    for color, shape in SHAPES:
        picture[:, _inside(shape, across, down)] = torch.tensor(color, dtype=torch.uint8).view(3, 1)
    return picture


def _inside(shape: tuple[tuple[float, float], ...], across: Tensor, down: Tensor) -> Tensor:
    """Mask of the pixels inside the shape, bool [rows, columns]."""
    if len(shape) == 2:
        (x, y), (wide, tall) = shape
        return ((across - x) / wide) ** 2 + ((down - y) / tall) ** 2 < 1
    edges = zip(shape, (*shape[1:], shape[0]), strict=True)
    first, second, third = ((across - x) * (b - y) - (down - y) * (a - x) > 0 for (x, y), (a, b) in edges)
    return (first == second) & (second == third)
