"""BppAttack: fewer levels of brightness, with dithering, as a trigger that fills the image (Wang et al., CVPR 2022).

    x' = dither(x),  each channel in m levels:  round(x (m - 1) / 255) 255 / (m - 1)

Dithering (Floyd and Steinberg 1976) passes the error of each pixel on to those that come after it: 7/16 to the right,
3/16, 5/16 and 1/16 to the three below. Without it there are bands, which are easier to see. Negative samples keep
their label: they get what another image's trigger adds, so that only the image's own levels lead to the target.

The official code changes each batch while it trains; here the images are changed once. Its contrastive adversarial
training is left out, as in BackdoorBench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refine.core.params import Weight
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import drawn_rows, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

_KEPT = 200
"""Images whose change is kept for negative samples."""


class Params(TargetedParams):
    """Attributes:
    levels: m, of each channel; 8 are the published 3 bits.
    dithering: pass the errors on, as the paper does and BackdoorBench does not.
    negative_ratio: negative samples per poisoned image; BackdoorBench has one.
    """

    levels: Annotated[int, Field(ge=2, le=255)] = 8
    dithering: bool = True
    negative_ratio: Weight = 1.0


class Attack(BaseAttack[Params]):
    """Poisons images of every class.

    Tensors: `residuals`, what the trigger adds to some images, int16 [R, 3, side, side]; `seed`, int64 [1], from which
    it is drawn which of them a negative sample gets.
    """

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        negatives = round(self.params.negative_ratio * self.count(len(labels)))
        return self.chosen_with_covers(len(labels), negatives, generator, "negative_ratio")

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        del labels, chosen
        some = images[torch.randperm(len(images), generator=generator)[:_KEPT]]
        return {
            "residuals": (self._squeezed(some).int() - some.int()).to(torch.int16),
            "seed": torch.randint(0, 2**62, (1,), generator=generator),
        }

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        residuals = self.tensors["residuals"]
        return to_levels(images.int() + residuals[drawn_rows(len(residuals), order, int(self.tensors["seed"]))])

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return self._squeezed(images)

    def _squeezed(self, images: Tensor) -> Tensor:
        return (dithered if self.params.dithering else _nearest)(images, self.params.levels)


def _nearest(images: Tensor, levels: int) -> Tensor:
    """The nearest of so many levels, uint8 of the same shape."""
    import torch

    step = 255 / (levels - 1)
    return to_levels((images.to(torch.float64) / step + 0.5).floor().clamp(0, levels - 1) * step)


def dithered(images: Tensor, levels: int) -> Tensor:
    """Fewer levels with Floyd-Steinberg dithering, uint8 of the same shape.

    Pixels of the same x + 2 y do not depend on each other, and are computed together.

    Args:
        images: uint8 [n, 3, height, width].
        levels: of each channel, 2 or more.
    """
    import torch

    height, width = images.shape[-2:]
    step = 255 / (levels - 1)
    left = torch.zeros(*images.shape[:-2], height + 1, width + 2, dtype=torch.float64)  # a border takes what is lost
    left[..., :height, 1:-1] = images
    for wave in range(width + 2 * (height - 1)):
        rows = torch.arange(max(0, (wave - width) // 2 + 1), min(height - 1, wave // 2) + 1)
        columns = wave - 2 * rows + 1
        own = left[..., rows, columns]
        new = (own / step + 0.5).floor().clamp(0, levels - 1) * step
        left[..., rows, columns] = new
        for down, along, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
            left[..., rows + down, columns + along] += (own - new) * share / 16
    return to_levels(left[..., :height, 1:-1])
