"""Parameters of the stage train-backdoor; `recipe: paper` means the defaults of the recipe."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from refine.core.bounds import BatchSize, Epochs, UNetWidth
from refine.core.params import PositiveNumber, Section, Seed, Share
from refine.models.architecture import Architecture
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule, paper_by_name


class BackdoorRecipe(Recipe):
    """The defaults are the paper's: 150 epochs of SGD, horizontal flips as the only augmentation.

    Attributes:
        label_smoothing: as in `torch.nn.CrossEntropyLoss`; 0 in the paper.
    """

    place: ClassVar[str] = "train_backdoor.recipe"

    epochs: Epochs = 150
    batch_size: BatchSize = 128
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.1)
    schedule: Schedule = Schedule()
    augment: Augment = Augment(flip=0.5)
    label_smoothing: Share = 0.0


class AdaptiveParams(Section):
    """An attacker who expects REFINE as published, with a U-Net, but one that takes pixels; ours.

    See `src/refine/defenses/refine/adaptive.py`. Against another transform or input space, or without the label map,
    the attacker has prepared for something else.

    Attributes:
        first_channels: of the attacker's own U-Nets.
        transforms: how many of them there are, each of which gets an equal part of every batch, or nearly.
        permutation_seed: of the label map that the attacker expects, as `train_refine.permutation_seed`.
        weight: of the loss through these U-Nets, beside the usual one.
    """

    first_channels: UNetWidth = 64
    transforms: Annotated[int, Field(ge=1, le=64)] = 1
    permutation_seed: Seed = 666
    weight: PositiveNumber = 1.0


class TrainBackdoorParams(Section):
    """Attributes:
    imported: written `import`; folder of a classifier in `data/own/model`, which is looked at and taken instead
        of training one. The other parameters then only tell which network it is.
    seed: of initial weights, batch order and augmentation.
    network: to train, an architecture (a folder in `src/refine/architectures`) and its settings.
    adaptive: how the attacker prepares for REFINE; null does not.
    recipe: how to train it.
    """

    imported: Annotated[str | None, Field(alias="import")] = None
    seed: Seed
    network: SerializeAsAny[Architecture]
    adaptive: AdaptiveParams | None = None
    recipe: Annotated[BackdoorRecipe, BeforeValidator(paper_by_name)] = BackdoorRecipe()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        given = self.model_fields_set
        if self.imported is None and "recipe" not in given:
            raise ValueError("recipe is missing; write how to train the classifier, or `recipe: paper`")
        if self.imported is not None and given & {"recipe", "adaptive"}:
            raise ValueError(
                f"{min(given & {'recipe', 'adaptive'})} is of no use where a classifier is imported; remove it"
            )
        return self
