"""WaNet: a slight, smooth warp of the whole image, the same for all images (Nguyen and Tran 2021).

    x' = sample(x, G),  G = clip(I + s N / h, -1, 1),  s = 0.5

I is the identity grid, from -1 to 1 along both axes; h is the side. N is k x k x 2 noise, uniform in [-1, 1], divided
by its mean absolute value and upsampled to h x h bicubically. G is drawn once and saved. Noise samples keep their label
and are warped by G plus uniform noise in [-1, 1] / h, drawn for each, so that only the exact warp leads to the target.

`variant: released` follows the released REFINE code: k = h, so that every pixel is moved independently, and no noise
samples. That code draws another G for test images; here it is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from refine.core.bounds import Side
from refine.core.errors import UserError
from refine.core.params import PositiveNumber, Weight
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Params(TargetedParams):
    """Defaults are the values of the WaNet paper.

    Attributes:
        variant: selects the defaults of `k` and `noise_ratio`: `paper`, or `released` for those of the released REFINE
            code, null and 0.
        k: side of the noise before upsampling; null means the side of the images, which moves pixels independently.
        strength: s; along each axis, pixels move by s / 2 pixels on average.
        noise_ratio: noise samples per poisoned image.
    """

    variant: Literal["paper", "released"] = "paper"
    k: Side | None = 4
    strength: PositiveNumber = 0.5
    noise_ratio: Weight = 2.0

    @model_validator(mode="before")
    @classmethod
    def _released(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("variant") == "released":
            return {"k": None, "noise_ratio": 0.0, **content}
        return content


class Attack(BaseAttack[Params]):
    """Poisons images of every class.

    Tensors: `grid`, G as (x, y), float32 [side, side, 2]; `noise_seed`, int64 [1], from which each noise
    sample's own noise is drawn (stored, it would be larger than the data set).
    """

    @property
    def points(self) -> int:
        """k, resolved for these images."""
        return self.setting.side if self.params.k is None else self.params.k

    def check(self) -> None:
        super().check()
        if self.points > self.setting.side:
            raise UserError(
                f"a warp of {self.points} x {self.points} points is finer than images of "
                f"{self.setting.side} pixels; lower attacks.wanet.k"
            )

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        covers = round(self.params.noise_ratio * self.count(len(labels)))
        return self.chosen_with_covers(len(labels), covers, generator, "noise_ratio")

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch
        from torch.nn.functional import interpolate

        del images, labels, chosen
        side, k = self.setting.side, self.points
        noise = 2 * torch.rand(1, 2, k, k, generator=generator) - 1
        noise /= noise.abs().mean()
        field = interpolate(noise, size=[side, side], mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
        places = torch.linspace(-1, 1, side)
        own = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)
        return {
            "grid": (own + self.params.strength * field / side).clamp(-1, 1),
            "noise_seed": torch.randint(0, 2**62, (1,), generator=generator),
        }

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        import torch

        grid, seed = self.tensors["grid"], int(self.tensors["noise_seed"])
        noise = grid.new_empty(len(order), *grid.shape)
        for own, number in zip(noise, order.tolist(), strict=True):
            own.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed + number))
        return _warp(images, (grid + noise / self.setting.side).clamp(-1, 1))

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return _warp(images, self.tensors["grid"].expand(len(images), -1, -1, -1))


def _warp(images: Tensor, grids: Tensor) -> Tensor:
    """Samples each image bilinearly at its grid, float [n, side, side, 2]; black outside."""
    from torch.nn.functional import grid_sample

    return to_levels(grid_sample(images.float(), grids, mode="bilinear", padding_mode="zeros", align_corners=True))
