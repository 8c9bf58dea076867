"""Settings of the retuning attack, with the published values."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Number, PositiveNumber, Section


class RetuningParams(Section):
    """Attributes:
    clean_share: of the clean training images, which the attacker has with their labels.
    poisoned: number of poisoned training images that the attacker has; all where there are fewer.
    epochs: passes over these images.
    batch_size: images per step.
    lr: learning rate of SGD, without weight decay.
    momentum: of SGD.
    seeds: each one draws other images.
    tested: clean test images that a system is measured on after each draw, with what the attack makes of them; each
        draw has others, so that the mean is that of more images; all where there are fewer.
    """

    clean_share: Annotated[Number, Field(gt=0, le=1)] = 0.02
    poisoned: Annotated[int, Field(ge=1)] = 5
    epochs: Epochs = 5
    batch_size: BatchSize = 128
    lr: PositiveNumber = 0.01
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default=[1, 2, 3, 4, 5])
    tested: Annotated[int, Field(ge=1)] = 2000
