"""Distilled student, the null hypothesis of REFINE: a new network that learns the classifier's answers.

A network of the classifier's architecture with new weights is trained on the same unlabeled clean images as REFINE's
transform, with the same augmentation, and with nothing but the classifier's answers as labels. It never sees a trigger,
and shares no weight with the classifier. What REFINE adds has to show beside it.

Distillation that copies the answers to clean images (Hinton et al. 2015, "Distilling the Knowledge in a Neural
Network"); an attacker who expects it can plant a backdoor that survives it (Chen et al. 2025, "SCAR").
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Section
from refine.defending import repaired
from refine.defending.repaired import Repaired
from refine.training.recipe import Augment, DefenderRecipe, Optimizer, Schedule, paper_by_name

NAME = "distilled"


class StudentRecipe(DefenderRecipe):
    """The defaults are those of REFINE's transform."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 150
    batch_size: BatchSize = 256
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.01)
    schedule: Schedule = Schedule(factor=0.8)
    augment: Augment = Augment(crop_scale=0.8, flip=0.5, grayscale=0.2)


class Params(Section):
    """Attributes:
    answers: what the student learns, the classifier's `labels` as REFINE does, or its `probabilities`.
    asked: `each_step` asks the classifier about the augmented images; `once` beforehand about the images as they are,
        and then for labels alone.
    recipe: how the student is trained.
    """

    answers: Literal["labels", "probabilities"] = "labels"
    asked: Literal["each_step", "once"] = "each_step"
    recipe: Annotated[StudentRecipe, BeforeValidator(paper_by_name)] = StudentRecipe()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answers == "probabilities" and self.asked == "once":
            raise ValueError("asked once gives labels alone; set asked to each_step, or answers to labels")
        return self


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "distilled student"
    regime = "unlabeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
