"""BadNets as in D-ST and D-BR (Chen et al., NeurIPS 2022), all-to-all: a white square near the corner.

    x' = 255 on the square, x elsewhere;  y' = (y + 1) mod K

For 224 pixels, the authors lead all classes to one, with a square of 22 pixels in the corner: `{target: 0, margin: 0}`.
They draw it before images are resized, so that its size varies; here it is constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.core.bounds import Label, PixelCount
from refine.poisoning.attack import Chosen
from refine.poisoning.overlay import PatchAttack, PatchParams, in_proportion

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Params(PatchParams):
    """Attributes:
    rate: poisoned fraction of the whole training set; with a target, of the images of all other classes.
    target: class that the trigger leads to; by default class y is led to y + 1, and the last one to 0.
    patch_side: height and width of the square in pixels; by default a tenth of the image, rounded down.
    margin: pixels between the square and the edges; by default 1 on images of 32 pixels, in proportion on others.
    """

    target: Label | None = None  # type: ignore[assignment]  # deliberately wider
    margin: PixelCount | None = None


class Attack(PatchAttack[Params]):
    """Poisons images of every class or, with a target, of all other classes."""

    def published_side(self) -> int:
        return max(1, self.setting.side // 10)

    @property
    def margin(self) -> int:
        return in_proportion(1, self.setting.side) if self.params.margin is None else self.params.margin

    def candidates(self, labels: Tensor) -> Tensor:
        return (labels != self.relabel(labels)).nonzero().flatten()

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        del images, labels, chosen, generator
        return {"pattern": torch.full((3, self.patch_side, self.patch_side), 255, dtype=torch.uint8)}

    def relabel(self, labels: Tensor) -> Tensor:
        return (labels + 1) % self.setting.num_classes if self.params.target is None else super().relabel(labels)
