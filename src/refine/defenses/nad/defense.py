"""NAD, neural attention distillation (Li et al., ICLR 2021): fine-tuning under the attention of a fine-tuned copy.

A copy of the classifier, the teacher, is fine-tuned on the labeled images. Then the classifier is fine-tuned with

    CE + sum over l of weights[l] · mean (A_l(student) - A_l(teacher))²,    A_l ~ sum over channels |a_l|^power,

where a_l are the last maps of a resolution of the network, and A_l, as a vector over the pixels, has length 1.

The published third term, of the pooled features, is nothing: a map of one pixel always normalizes to 1. The authors'
code and BackdoorBench pass the training images four more times through parts of the network in training mode, which
moves running statistics; here there is one pass. The official weights are for the last two resolutions of a ResNet,
its third and fourth stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from refine.core.bounds import Epochs
from refine.core.params import Number, Weight
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import Schedule, paper_by_name

NAME = "nad"


class NadRecipe(FinetuningRecipe):
    """The defaults are those of BackdoorBench."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 10
    schedule: Schedule = Schedule(name="step", milestones=[])


class TeacherRecipe(NadRecipe):
    """The same by default."""

    place: ClassVar[str] = f"defense_settings.{NAME}.teacher"


class Params(FinetuningParams):
    """Attributes:
    weights: of the attention of each resolution; the last one is of the coarsest map of more than a pixel.
    power: of the activations in the attention.
    teacher: how the teacher is fine-tuned.
    recipe: how the classifier is fine-tuned.
    """

    weights: Annotated[tuple[Weight, ...], Field(min_length=1, max_length=16, strict=False)] = (500.0, 1000.0)
    power: Annotated[Number, Field(ge=1, le=100)] = 2.0
    teacher: Annotated[TeacherRecipe, BeforeValidator(paper_by_name)] = TeacherRecipe()
    recipe: Annotated[NadRecipe, BeforeValidator(paper_by_name)] = NadRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "NAD"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
