"""How a network is trained: schedule, optimizer, batches, augmentation, precision. Both trainings use it."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from refine.core.bounds import BatchSize, Epochs, PixelCount, ShuffleBuffer
from refine.core.params import Number, PositiveNumber, Section, Share, Weight

Precision = Literal["fp32", "bf16", "auto"]


class Jitter(Section):
    """Random changes of an image's colors, in a random order; torchvision's ColorJitter.

    Attributes:
        probability: that an image is changed at all.
        brightness: largest change, a share of what it is.
        contrast: likewise.
        saturation: likewise.
        hue: largest turn, a share of the circle of hues.
    """

    probability: Share = 0.8
    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[Number, Field(ge=0, le=0.5)] = 0.1


class Augment(Section):
    """Random changes of a training batch, one draw per image, in this order; 0 switches a change off.

    Attributes:
        crop_scale: smallest area of a random resized crop, as a share of the image (aspect 3/4 to 4/3); 1 is off.
        shift: largest shift in pixels, the border filled with black.
        flip: probability of a horizontal flip.
        jitter: changes of colors; null is off, and {} has the usual strength.
        grayscale: probability of turning the image gray.
        cutout: side in pixels of a black square around any pixel, so that part of it may lie outside.
    """

    crop_scale: Annotated[Number, Field(gt=0, le=1)] = 1.0
    shift: PixelCount = 0
    flip: Share = 0.0
    jitter: Jitter | None = None
    grayscale: Share = 0.0
    cutout: PixelCount = 0


class Optimizer(Section):
    """Attributes: `name` and its settings; `momentum` and `nesterov` concern sgd alone."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveNumber
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Weight = 5e-4


class Schedule(Section):
    """The learning rate over the run, as a factor on `optimizer.lr`.

    Attributes:
        name: `step` multiplies by `factor` at each milestone (a share of the epochs, rounded to whole ones);
            `one_cycle` rises linearly to the peak and falls linearly to zero, batch by batch; `cosine` falls along half
            a cosine to `floor`, epoch by epoch; `oscillating` does so to zero within `period` steps, rises again in as
            many, and so on.
        milestones: shares of the run; (2/3, 13/15) are the paper's epochs 100 and 130 of 150.
        factor: what a milestone multiplies by.
        warmup: share of the run that rises, one_cycle only.
        period: steps, oscillating only.
        floor: factor at the end, cosine only.
        rise: share of the run, rounded to whole epochs, in which a straight line from `start` leads to the cosine,
            batch by batch; cosine only.
        start: factor of the first step, where there is a `rise`.
    """

    name: Literal["step", "one_cycle", "cosine", "oscillating"] = "step"
    milestones: Annotated[list[Share], Field(max_length=100)] = Field(default=[2 / 3, 13 / 15])
    factor: PositiveNumber = 0.1
    warmup: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    period: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    floor: Share = 0.0
    rise: Share = 0.0
    start: Share = 0.0


class Recipe(Section):
    """A whole training recipe; each stage gives the paper's values as its defaults.

    A group that is named, such as `augment`, is taken as a whole: what it leaves out has the default of the group and
    not of the recipe.

    Attributes:
        place: where the user finds it, for messages.
        epochs: passes over the training images.
        batch_size: images per step.
        drop_last: leave out the last, smaller batch of an epoch.
        precision: `bf16` runs the networks under bfloat16 autocast, losses stay in float32; `auto` takes bf16
            where the processor computes in it and fp32 elsewhere. The resolved value stands in the card.
        compile: let torch compile the networks; needs a compiler on the machine.
        shuffle_buffer: images that are shuffled together. A data set that is not larger is shuffled uniformly, a
            larger one shard by shard and through a buffer of this size, which is all that a streamed one keeps.
        average: decay of the moving average of the weights, which then counts instead of the last ones; 0 is off.
    """

    place: ClassVar[str]

    epochs: Epochs
    batch_size: BatchSize
    drop_last: bool
    precision: Precision = "fp32"
    compile: bool = False
    shuffle_buffer: ShuffleBuffer = 65536
    average: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer.nesterov and (self.optimizer.name != "sgd" or self.optimizer.momentum == 0):
            raise ValueError("optimizer.nesterov needs optimizer.name sgd and a momentum above 0")
        if self.shuffle_buffer < self.batch_size:
            raise ValueError("shuffle_buffer has to hold a batch; make it batch_size or more")
        return self

    def lasting(self, steps_per_epoch: int) -> Self:
        """This recipe with the epochs that it takes where each has so many steps."""
        return self


def refuse_compilation(compile_it: bool) -> bool:
    """For the recipes of trainings that do without torch's compiler.

    Raises:
        ValueError: it is asked for.
    """
    if compile_it:
        raise ValueError("is not done in this training; set it to false")
    return compile_it


class DefenderRecipe(Recipe):
    """A recipe for as many images as a defender happens to have.

    Attributes:
        min_steps: the passes over the images are repeated until there are that many steps; few images then take as long
            as many.
    """

    min_steps: Annotated[int, Field(ge=0, le=999_999)] = 0

    def lasting(self, steps_per_epoch: int) -> Self:
        """This recipe with as many epochs as `min_steps` asks for."""
        epochs = max(self.epochs, math.ceil(self.min_steps / steps_per_epoch))
        return self.model_copy(update={"epochs": epochs})


def paper_by_name(value: Any) -> Any:
    """`paper` stands for a recipe in which nothing departs from its defaults."""
    return {} if value == "paper" else value
