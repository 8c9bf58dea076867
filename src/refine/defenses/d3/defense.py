"""D3, distance-driven detoxification (Wei et al., ICCV 2025): the last layer goes as far away as accuracy allows.

The weights W of the last layer are drawn anew, uniformly and then scaled to the length ‖W0‖ of the given ones. All
layers are trained with

    weight · mean_i max(0, CE_i - bound) - ‖W - W0‖,    divided by weight + 1 if weight > 1;

that is, the cross-entropy CE_i of an image counts only where it is above a bound, and W goes to where ‖W - W0‖ is
largest. After each step, W ← W · ‖W0‖ / ‖W‖, so that the distance is at most 2 ‖W0‖.

As in the official code, there is no weight decay (its configuration names one that does not reach the optimizer), and
the bias of the last layer is neither drawn anew nor projected. That code also begins from other last layers (the given
one, its negative, noise), which are not offered here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from refine.core.params import Weight
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import Optimizer, paper_by_name

NAME = "d3"


class D3Recipe(FinetuningRecipe):
    """The defaults are those of the official code."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    optimizer: Optimizer = Optimizer(lr=0.01, weight_decay=0.0)


class Params(FinetuningParams):
    """Attributes:
    weight: of the cross-entropy, λ in the paper; the official configuration has 0.5, the paper's text 10.
    bound: cross-entropy that is low enough, ε in the paper.
    recipe: how the classifier is fine-tuned.
    """

    weight: Weight = 0.5
    bound: Weight = 0.1
    recipe: Annotated[D3Recipe, BeforeValidator(paper_by_name)] = D3Recipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "D3"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
