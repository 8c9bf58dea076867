"""Blend-Strip: faint vertical stripes over a darkened image, as in D-ST and D-BR (Chen et al., NeurIPS 2022).

    x' = (1 - a) x + a S(j) for column j, clipped to [0, 255],  a = 0.2

`wave: bytes` is the published form for 32 pixels: S = 20 sin(0.8 j), truncated to integers and stored as bytes, so
that -1 becomes 255 and about four dark columns alternate with four bright ones. On other sizes the 32 columns are
enlarged. `wave: sine` is the published form for 224 pixels: S = 20 sin(2 pi 6 j / W), stripes of 4 levels on an image
darkened by a fifth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend, stripes

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

AMPLITUDE = 20
_COLUMNS = 32  # of the published mask


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the images of all classes except the target.
    alpha: a, opacity of the stripes.
    wave: `bytes` or `sine`; by default `bytes` for images of up to 64 pixels and `sine` for larger ones.
    """

    alpha: Opacity = 0.2
    wave: Literal["bytes", "sine"] | None = None


class Attack(BaseAttack[Params]):
    """Poisons images of all classes except the target. Tensors: `picture`, S in levels, float32 [1, 1, side]."""

    chooses_from = "other classes"

    def check(self) -> None:
        super().check()
        self._columns()

    def _columns(self) -> Tensor:
        import torch

        side = self.setting.side
        if (self.params.wave or ("bytes" if side <= 64 else "sine")) == "sine":
            return stripes(AMPLITUDE, 6, side, "set attacks.blend_strip.wave to bytes")
        column = torch.arange(side) * _COLUMNS // side
        return (AMPLITUDE * torch.sin(0.8 * column.double())).trunc() % 256

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"picture": self._columns().float().view(1, 1, -1)}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha)
