"""Blend-Kitty: a faint picture of a cat over the whole image, as in D-ST and D-BR (Chen et al., NeurIPS 2022).

    x' = (1 - a) x + a P,  a = 0.2

The published P is a third-party cartoon; ours is the face of a cat, drawn here from ellipses and triangles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

TEAL, CREAM, ORANGE, BROWN, GREEN, PINK, WHITE = (
    (0, 110, 130),
    (255, 236, 200),
    (250, 150, 40),
    (60, 25, 10),
    (120, 220, 60),
    (240, 90, 120),
    (255, 255, 255),
)
# A colour, then where it goes, later ones above earlier ones, in a unit square with its origin in the top left:
# centre (x, y) and half axes of an ellipse, or the corners of a triangle.
SHAPES = (
    (ORANGE, ((0.12, 0.06), (0.46, 0.28), (0.14, 0.56))),
    (ORANGE, ((0.88, 0.06), (0.54, 0.28), (0.86, 0.56))),
    (PINK, ((0.18, 0.16), (0.36, 0.28), (0.20, 0.44))),
    (PINK, ((0.82, 0.16), (0.64, 0.28), (0.80, 0.44))),
    (ORANGE, ((0.5, 0.58), (0.41, 0.36))),
    (BROWN, ((0.42, 0.22), (0.46, 0.22), (0.45, 0.38))),
    (BROWN, ((0.48, 0.21), (0.52, 0.21), (0.50, 0.40))),
    (BROWN, ((0.54, 0.22), (0.58, 0.22), (0.55, 0.38))),
    (CREAM, ((0.5, 0.76), (0.22, 0.16))),
    (WHITE, ((0.32, 0.53), (0.11, 0.09))),
    (WHITE, ((0.68, 0.53), (0.11, 0.09))),
    (GREEN, ((0.32, 0.53), (0.08, 0.08))),
    (GREEN, ((0.68, 0.53), (0.08, 0.08))),
    (BROWN, ((0.32, 0.53), (0.03, 0.08))),
    (BROWN, ((0.68, 0.53), (0.03, 0.08))),
    (PINK, ((0.43, 0.66), (0.57, 0.66), (0.5, 0.74))),
    (BROWN, ((0.5, 0.82), (0.09, 0.02))),
    (BROWN, ((0.34, 0.73), (0.02, 0.66), (0.02, 0.68))),
    (BROWN, ((0.34, 0.78), (0.02, 0.82), (0.02, 0.84))),
    (BROWN, ((0.66, 0.73), (0.98, 0.66), (0.98, 0.68))),
    (BROWN, ((0.66, 0.78), (0.98, 0.82), (0.98, 0.84))),
)
FINER = 4  # shapes are drawn so many times larger, then averaged: smooth edges at any size


class Params(TargetedParams):
    """Attributes:
    rate: poisoned share of the images of other classes than the target.
    alpha: a, opacity of the picture.
    """

    alpha: Opacity = 0.2


class Attack(BaseAttack[Params]):
    """Poisons images of other classes than the target. Tensors: `picture`, P, uint8 [3, side, side]."""

    chooses_from = "other classes"

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"picture": draw(self.setting.side)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)


def draw(side: int) -> Tensor:
    """The cat, uint8 [3, side, side]."""
    import torch
    from torch.nn.functional import avg_pool2d

    across = (torch.arange(FINER * side) + 0.5) / (FINER * side)
    down = across.view(-1, 1)
    picture = torch.tensor(TEAL).float().view(3, 1, 1).expand(3, FINER * side, FINER * side)
    for colour, shape in SHAPES:
        picture = torch.where(_inside(shape, across, down), torch.tensor(colour).float().view(3, 1, 1), picture)
    return to_levels(avg_pool2d(picture, FINER))


def _inside(shape: tuple[tuple[float, float], ...], across: Tensor, down: Tensor) -> Tensor:
    """Which points belong to the shape, bool [rows, columns]."""
    if len(shape) == 2:
        (x, y), (wide, tall) = shape
        return ((across - x) / wide) ** 2 + ((down - y) / tall) ** 2 < 1
    edges = zip(shape, (*shape[1:], shape[0]), strict=True)
    first, second, third = ((across - x) * (b - y) - (down - y) * (a - x) > 0 for (x, y), (a, b) in edges)
    return (first == second) & (second == third)
