"""Settings of inverting a trigger by decoupled features, which both variants of BTI-DBF share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from refine.core.bounds import BatchSize, Epochs, UNetWidth
from refine.core.params import Number, PositiveNumber, Section, Share, Weight
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule, refuse_compilation


class DecouplingRecipe(Recipe):
    """The defaults are those of the official code."""

    batch_size: BatchSize = 128
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(name="adamw", lr=1e-3, weight_decay=0.0)
    schedule: Schedule = Schedule(name="step", milestones=[])
    augment: Augment = Augment(shift=4, flip=0.5)

    _uncompiled = field_validator("compile")(refuse_compilation)


class PretrainingRecipe(DecouplingRecipe):
    """Of the generator, once."""

    place: ClassVar[str] = "defense_settings.bti_dbf.pretraining"
    epochs: Epochs = 50


class MaskRecipe(DecouplingRecipe):
    """Of the mask, in each round."""

    place: ClassVar[str] = "defense_settings.bti_dbf.mask"
    epochs: Epochs = 20
    optimizer: Optimizer = Optimizer(name="adamw", lr=0.01, weight_decay=0.0)


class GeneratorRecipe(DecouplingRecipe):
    """Of the generator, in each round."""

    place: ClassVar[str] = "defense_settings.bti_dbf.generator"
    epochs: Epochs = 30


class DecouplingParams(Section):
    """Attributes:
    rounds: of inverting and repairing.
    first_channels: of the U-Net.
    noise: deviation of what is added to normalized images.
    generated: share of the images of a batch that the generator changes while the defense learns.
    image_bound: mean squared change of a normalized image above which the generator only learns to lower it.
    feature_bound: likewise of the features that clean images need.
    least_margin: by which the most frequent class has to lead over the second to be held for the target.
    pretraining: of the generator.
    mask: how the mask is trained.
    generator: how the generator is trained.
    """

    rounds: Annotated[int, Field(ge=1, le=100)] = 5
    first_channels: UNetWidth = 32
    noise: Weight = 0.03
    generated: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    image_bound: PositiveNumber = 0.3
    feature_bound: PositiveNumber = 3.0
    least_margin: Share = 0.2
    pretraining: PretrainingRecipe = PretrainingRecipe()
    mask: MaskRecipe = MaskRecipe()
    generator: GeneratorRecipe = GeneratorRecipe()
