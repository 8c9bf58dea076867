"""I-BAU, implicit backdoor adversarial unlearning (Zeng et al., ICLR 2022): a minimax problem whose inner solution, a
perturbation that all images share, is differentiated implicitly.

Each round first seeks one perturbation d of the normalized images, by one step of gradient descent for each batch on

    inner(d, w) = -CE(F_w(x + d), the class that F_w gives x) + penalty · |d|².

Then, for each batch, the classifier's weights w take a step with the gradient of

    outer(d(w), w) = CE(F_w(x'), y),   x' = x with d added to a share of the images,

which is ∂outer/∂w + (∂d/∂w)ᵀ ∂outer/∂d. The second term follows from the fixed point of d -> d - inner_step ∂inner/∂d
on the first batch of the round, there with the true classes (Grazzi et al., ICML 2020): with v = 0 at first and the
Jacobian J of that map by d,

    v <- Jᵀ v + ∂outer/∂d,   `implicit_steps` times,   and (∂d/∂w)ᵀ ∂outer/∂d = (∂map/∂w)ᵀ v.

As in the official code, running statistics are used throughout, and d is not bounded (the projection to a ball is
commented out there). That code augments the images once and keeps them so; here they are augmented anew. It uses Adam
with amsgrad, for which AdamW without decay stands here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, field_validator

from refine.core.bounds import Epochs
from refine.core.params import Number, PositiveNumber, Section, Weight
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import Optimizer, Schedule, paper_by_name, refuse_compilation

NAME = "ibau"


class IbauRecipe(FinetuningRecipe):
    """The defaults are those of the official code; an epoch is a round."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 5
    optimizer: Optimizer = Optimizer(name="adamw", lr=1e-4, weight_decay=0.0)
    schedule: Schedule = Schedule(name="step", milestones=[])

    _uncompiled = field_validator("compile")(refuse_compilation)


class Params(Section):
    """Attributes:
    inner_lr: of the descent to the perturbation.
    penalty: of its squared length.
    share: of the images of a batch that get it.
    inner_step: of the map whose fixed point the perturbation is.
    implicit_steps: with which the implicit gradient is approximated.
    recipe: how the classifier is trained.
    """

    inner_lr: PositiveNumber = 10.0
    penalty: Weight = 0.001
    share: Annotated[Number, Field(gt=0, le=1)] = 0.01
    inner_step: PositiveNumber = 0.1
    implicit_steps: Annotated[int, Field(ge=0, le=1000)] = 5
    recipe: Annotated[IbauRecipe, BeforeValidator(paper_by_name)] = IbauRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "I-BAU"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
