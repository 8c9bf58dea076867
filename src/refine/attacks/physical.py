"""Physical: the patch of BadNets on training images that are rotated, shifted and shrunk (Li et al. 2021).

    x' = x outside the patch, p inside;  in training, every image (poisoned or benign) is replaced by T(x'),
    T drawn each time: flip, brightness, rotation, shift and scale, black outside the image

So the trigger survives defenses that move it, such as ShrinkPad. T is not applied to test images, neither benign nor
triggered: their content is larger than in training, which lowers the benign accuracy.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.core.params import Number, PositiveNumber, Share
from refine.poisoning.overlay import PatchParams, TextureAttack


class Params(PatchParams):
    """The last five settings are the ranges that T is drawn from.

    Attributes:
        rate: poisoned fraction of the whole training set.
        patch_side: height and width of the patch in pixels; by default that of `badnets`.
        degrees: largest rotation in either direction.
        translate: largest shift in either direction, as a fraction of the side.
        scale: smallest and largest scaling factor.
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
            raise ValueError("the smaller factor comes first, as in [0.8, 0.9]")
        return scale


class Attack(TextureAttack[Params]):
    """Poisons images of every class."""

    def attacker_augmentation(self) -> AttackerAugmentation:
        settings = self.params.model_dump(include=set(Distortion.model_fields))
        return AttackerAugmentation(poisoned=Distortion(**settings), benign=Distortion(**settings))
