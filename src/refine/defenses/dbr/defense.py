"""D-BR (Chen et al., NeurIPS 2022, "Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples").

A split of the poisoned training set (`split-samples`, by default `sd`) gives images that look poisoned, D_p, and images
that look clean, D_c. Each epoch first goes over D_p with steps that raise the cross-entropy of the given labels, which
unlearns the trigger, then over D_c with steps that lower it, which keeps what else the classifier has learned. Batch
normalization is in training mode in both, and one optimizer with its momentum serves both.

The official code keeps the epoch with the largest difference of accuracy and attack success rate on test images, which
a defender does not have; here the last epoch counts. It raises the loss without bound: clean images in D_p then destroy
the classifier. Here three guards notice it, and `guards: off` switches them off:

- an image of D_p is not raised further where its cross-entropy in evaluation mode is above `cap` ln K (K classes);
- where accuracy on a held-out part of D_c has fallen by more than 10 points, the state before that epoch counts;
- where the split itself says that its groups cannot be trusted, the classifier stays as it is.

`guards.json` beside the weights tells what they did.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Number, PositiveNumber, Section
from refine.defending import repaired
from refine.defending.repaired import Repaired
from refine.splitting.params import SplitName
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule, paper_by_name

NAME = "dbr"


class RepairRecipe(Recipe):
    """The defaults are published: 20 epochs of SGD with a small, constant learning rate, random crops and flips."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 20
    batch_size: BatchSize = 128
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=1e-4)
    schedule: Schedule = Schedule(milestones=[])
    augment: Augment = Augment(shift=4, flip=0.5)

    @model_validator(mode="after")
    def _refuse_average(self) -> Self:
        if self.average:
            raise ValueError("average is not for weights that go up and down in turn; set it to 0")
        return self


class Params(Section):
    """Attributes:
    split: of the training set, a name that is listed in `splits`.
    guards: `off` is the official behavior, which can destroy the classifier.
    bn: `train` normalizes each batch by its own statistics, as published; `eval` by the running ones.
    cap: of the cross-entropy of D_p, as a multiple of that of guessing, for the guards.
    held_out: share of the clean group that no step sees, for the guards.
    recipe: an epoch goes over D_p and over D_c.
    """

    split: SplitName = "sd"
    guards: Literal["on", "off"] = "on"
    bn: Literal["train", "eval"] = "train"
    cap: PositiveNumber = 3.0
    held_out: Annotated[Number, Field(gt=0, le=0.5)] = 0.1
    recipe: Annotated[RepairRecipe, BeforeValidator(paper_by_name)] = RepairRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "D-BR"
    regime = "poisoned_train"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
