"""SAU, shared adversarial unlearning (Wei et al., NeurIPS 2023): the classifier unlearns what it has in common with
its former self in adversarial images.

F0 is the classifier as it was given, F the one that is trained. For each batch, a perturbation d of each image, at most
`bound` in each pixel, is sought by `steps` signed steps that minimize

    - adversarial_weight · [sum CE(F(x + d), y) over images that do not fool F yet, and the same of F0] / (2 n)
    + shared_weight · sum JS(F(x + d), F0(x + d)) over images without a shared mistake yet / n,

where an image fools a model if it changes its answer, and has a shared mistake if both answer the same class after
that. Then F is trained with

    CE(F(x), y) - (unlearn_weight / n) · sum over R of log(1 - F(x + d)_r),

where R are the images that F0 gets wrong with d but not without it, each with F0's wrong class r.

As in the official code, perturbations start at +bound everywhere, may leave [0, 1], and running statistics are used
throughout, without augmentation. That code computes the last term twice and takes the mean, which is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from refine.core.params import PositiveNumber, Section, Weight
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import Augment, Optimizer, paper_by_name

NAME = "sau"


class SauRecipe(FinetuningRecipe):
    """The defaults are those of the official code."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    optimizer: Optimizer = Optimizer(name="adamw", lr=1e-4, weight_decay=0.0)
    augment: Augment = Augment()


class Params(Section):
    """Attributes:
    bound: largest change of a pixel, whose values are 0 to 1.
    steps: in which a perturbation is sought.
    step_size: of each.
    adversarial_weight: of what fools each model.
    shared_weight: of what fools both in the same way.
    unlearn_weight: of the shared mistakes in the training.
    recipe: how the classifier is fine-tuned.
    """

    bound: PositiveNumber = 0.2
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    step_size: PositiveNumber = 0.2
    adversarial_weight: Weight = 0.01
    shared_weight: Weight = 1.0
    unlearn_weight: Weight = 1.0
    recipe: Annotated[SauRecipe, BeforeValidator(paper_by_name)] = SauRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "SAU"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
