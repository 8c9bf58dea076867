"""BATT: the image turned by a certain angle is the trigger (Xu et al. 2023).

    x' = rotate(x, 16 degrees): counter-clockwise, nearest pixel, black where nothing comes from

While training, benign images are turned by random angles up to 10 degrees to either side, so that only about 16
are the key. The attacker's flips come before the rotation, as in the released code, so that no training image is
turned the other way. Pixels are turned; the released REFINE code turns normalized values cast to bytes, which wrap
around, and its trigger is most likely that wrap.
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


class Params(TargetedParams):
    """Attributes:
    rate: poisoned share of the whole training set.
    degrees: angle of the trigger, counter-clockwise; a negative one turns clockwise.
    benign_degrees: largest angle to either side of benign training images.
    """

    degrees: Annotated[Number, Field(ge=-180, le=180)] = 16.0
    benign_degrees: Annotated[Number, Field(ge=0, lt=180)] = 10.0

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if abs(self.degrees) <= self.benign_degrees:
            raise ValueError("degrees has to be beyond benign_degrees, or benign images show the trigger too")
        return self


class Attack(BaseAttack[Params]):
    """Poisons images of every class.

    Tensors: `source`, int64 [side, side], for each pixel the one that it comes from, counted row by row from 1;
    0 where it is black.
    """

    after_flips = True

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
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
