"""Blend-Strip: faint vertical stripes over a darkened image, as in D-ST and D-BR (Chen et al., NeurIPS 2022).

    x' = (1 - a) x + a S(j) for column j, clipped to [0, 255],  a = 0.2

`bytes`: S is a wave of amplitude 20 that was stored as bytes, its negative half wrapped to bright levels, so that
four dark columns follow four bright ones (their form for 32 pixels; 8 columns in a period, in proportion else).
`sine`: S = 20 sin(2 pi 6 j / W), stripes of 4 levels (their form for 224 pixels, mostly a change of brightness).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, stripes

if TYPE_CHECKING:
    from torch import Generator, Tensor

PERIOD = (0, 14, 19, 13, 255, 241, 237, 244)


class Params(TargetedParams):
    """Attributes:
    rate: poisoned share of the images of other classes than the target.
    alpha: a, opacity of the stripes.
    wave: `bytes` or `sine`; left out, `bytes` up to 64 pixels and `sine` above.
    """

    alpha: Opacity = 0.2
    wave: Literal["bytes", "sine"] | None = None


class Attack(BaseAttack[Params]):
    """Poisons images of other classes than the target. Tensors: `picture`, S in levels, float32 [1, 1, side]."""

    chooses_from = "other classes"

    def check(self) -> None:
        super().check()
        self._columns()

    def _columns(self) -> Tensor:
        import torch

        side = self.setting.side
        if (self.params.wave or ("bytes" if side <= 64 else "sine")) == "sine":
            return stripes(20, 6, side, "set attacks.blend_strip.wave to bytes")
        return torch.tensor(PERIOD)[torch.arange(side) * 32 // side % len(PERIOD)]

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"picture": self._columns().float().view(1, 1, -1)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)
