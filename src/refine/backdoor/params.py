"""Parameters of the stage train-backdoor; `recipe: paper` means the defaults of the recipe."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from refine.core.bounds import BatchSize, Epochs, Width
from refine.core.params import Section, Seed, Share
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule, paper_by_name


class Network(Section):
    """Attributes:
    name: the architecture, a file in `src/refine/architectures`.
    width: channels of its first stage; 64 in the paper.
    """

    name: str
    width: Width = 64


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


class TrainBackdoorParams(Section):
    """Attributes:
    seed: of initial weights, batch order and augmentation.
    network: to train.
    recipe: how to train it.
    """

    seed: Seed
    network: Network
    recipe: Annotated[BackdoorRecipe, BeforeValidator(paper_by_name)]
