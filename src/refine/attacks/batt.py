"""BATT: the trigger is a rotation of the image by a certain angle (Xu et al. 2023).

    x' = rotate(x, 16 degrees): counter-clockwise, nearest neighbor, black outside the image

In training, benign images are rotated by random angles of up to 10 degrees in either direction, so that only
angles near 16 degrees trigger the backdoor. Flips in training come before the rotation, as in the released code, so
that all poisoned images are rotated in the same direction. Here pixels are rotated; the released REFINE code rotates
normalized values cast to bytes, which wrap around, and most likely its trigger is that wrap-around.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.core.params import Number
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the whole training set.
    degrees: angle of the trigger, counter-clockwise; negative values are clockwise.
    benign_degrees: largest angle of benign training images, in either direction.
    """

    degrees: Annotated[Number, Field(ge=-180, le=180)] = 16.0
    benign_degrees: Annotated[Number, Field(ge=0, lt=180)] = 10.0

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if abs(self.degrees) <= self.benign_degrees:
            raise ValueError("degrees has to exceed benign_degrees, or benign images would have the trigger as well")
        return self


class Attack(BaseAttack[Params]):
    """Poisons images of every class.

    Tensors: `source`, int64 [side, side], for each pixel the index of its source pixel, row by row from 1; 0 for black.
    """

    after_flips = True

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        del images, labels, chosen, generator
        side = self.setting.side
        numbers = Image.fromarray(np.arange(1, side * side + 1, dtype=np.int32).reshape(side, side))
        turned = np.array(numbers.rotate(self.params.degrees, Image.Resampling.NEAREST))
        return {"source": torch.from_numpy(turned).long()}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        import torch

        del keys
        black = images.new_zeros(len(images), 3, 1)
        return torch.cat([black, images.flatten(2)], dim=2)[:, :, self.tensors["source"]]

    def attacker_augmentation(self) -> AttackerAugmentation:
        return AttackerAugmentation(benign=Distortion(degrees=self.params.benign_degrees))
