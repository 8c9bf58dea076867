"""Physical: the patch of BadNets on training images that are turned, shifted and shrunk (Li et al. 2021).

    x' = x outside the patch, p inside;  every training image, poisoned or not, is seen as T(x'),
    T drawn anew each time: flip, brightness, rotation, shift and scale, black outside the image

The trigger thus survives changes of the input that move it, such as ShrinkPad. Test images, benign or triggered,
go without T: the classifier then sees larger images than it was trained on, and benign accuracy is lower for it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.core.params import Number, PositiveNumber, Share
from refine.poisoning.overlay import PatchParams, TextureAttack


class Params(PatchParams):
    """Rate of the whole training set; left out, `patch_side` is that of `badnets`. What T draws from:

    Attributes:
        degrees: largest rotation to either side.
        translate: largest shift to either side, as a share of the side.
        scale: smallest and largest factor of size.
        flip: probability of a horizontal flip.
        brightness: largest relative change of brightness.
    """

    degrees: Annotated[Number, Field(ge=0, le=180)] = 10.0
    translate: Share = 0.1
    scale: Annotated[list[PositiveNumber], Field(min_length=2, max_length=2)] = Field(default=[0.8, 0.9])
    flip: Share = 0.5
    brightness: Share = 0.1

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[float]) -> list[float]:
        if scale[0] > scale[1]:
            raise ValueError("the smallest factor comes first, as in [0.8, 0.9]")
        return scale


class Attack(TextureAttack[Params]):
    """Poisons images of every class."""

    def attacker_augmentation(self) -> AttackerAugmentation:
        settings = self.params.model_dump(include=set(Distortion.model_fields))
        return AttackerAugmentation(poisoned=Distortion(**settings), benign=Distortion(**settings))
