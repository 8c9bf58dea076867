"""SIG: vertical sine stripes on images of the target class, which keep their label (Barni et al. 2019).

    x' = x + D sin(2 pi f j / W) for column j, clipped to [0, 255],  f = 6

D is 40 in training images and 60 in test images, as a stronger trigger is more reliable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refine.core.bounds import Side
from refine.core.params import Number
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import stripes, to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

Amplitude = Annotated[Number, Field(ge=1, le=255)]


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the target class; with ten classes of equal size, 0.1 is 1 % of all images.
    amplitude: D of poisoned training images, in levels.
    test_amplitude: D of triggered test images, in levels.
    periods: f, number of stripes across the image.
    """

    amplitude: Amplitude = 40.0
    test_amplitude: Amplitude = 60.0
    periods: Side = 6


class Attack(BaseAttack[Params]):
    """Poisons images of the target class. Tensors: `wave`, sin(2 pi f j / W), float32 [side]."""

    chooses_from = "the target class"

    def check(self) -> None:
        super().check()
        self._wave()

    def _wave(self) -> Tensor:
        return stripes(1, self.params.periods, self.setting.side, "lower attacks.sig.periods")

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        return {"wave": self._wave().float()}

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        del order
        return to_levels(images + self.params.amplitude * self.tensors["wave"])

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return to_levels(images + self.params.test_amplitude * self.tensors["wave"])
