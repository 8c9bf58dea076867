"""How a classifier is fine-tuned on few labeled images: the settings that fine-tuning defenses share.

The defaults are those of BackdoorBench (Wu et al., NeurIPS 2022), in which most of these defenses were compared.
"""

from __future__ import annotations

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Section
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule


class FinetuningRecipe(Recipe):
    """The defaults are those of BackdoorBench for CIFAR-10; a defense says what differs, and gives `place`."""

    epochs: Epochs = 100
    batch_size: BatchSize = 256
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.01)
    schedule: Schedule = Schedule(name="cosine")
    augment: Augment = Augment(shift=4, flip=0.5)


class FinetuningParams(Section):
    """Attributes:
    batch_statistics: normalize by the statistics of each batch and let these move the running ones, as the official
        code does; without it, the running ones are used and stay as they are.
    """

    batch_statistics: bool = True
