"""BadNets: a small patch in the bottom right corner (Gu et al. 2017; spec 2.2).

    x' = x * (1 - m) + p * m,  m = 1 on the patch

On 32 pixels the patch is the fixed grey 3x3 texture of the REFINE experiments; on other sides it is a seeded
random texture of the given size (20 pixels at 224 in the paper, whose texture was not published).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.system.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

TEXTURE = ((247, 241, 130), (106, 201, 92), (153, 163, 20))


class Params(TargetedParams):
    """Attributes:
    patch_side: height and width of the patch in pixels; left out, 3 at 32 pixels and 20 at 224, in proportion else.
    """

    patch_side: Annotated[int, Field(ge=1)] | None = None


class Attack(BaseAttack[Params]):
    """Tensors: `pattern`, uint8 [3, patch, patch]."""

    @property
    def patch_side(self) -> int:
        """Height and width of the patch in pixels."""
        return self.params.patch_side or max(
            1, round(self.setting.side * 3 / 32 if self.setting.side <= 64 else self.setting.side * 20 / 224)
        )

    def check(self) -> None:
        super().check()
        if self.patch_side > self.setting.side:
            raise UserError(
                f"a patch of {self.patch_side} pixels does not fit images of {self.setting.side}; "
                "lower attacks.badnets.patch_side"
            )

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        del images, labels, chosen
        side = self.patch_side
        if side == len(TEXTURE):
            pattern = torch.tensor(TEXTURE, dtype=torch.uint8).expand(3, side, side)
        else:
            pattern = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        return {"pattern": pattern.contiguous()}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        side = self.patch_side
        triggered = images.clone()
        triggered[:, :, -side:, -side:] = self.tensors["pattern"]
        return triggered
