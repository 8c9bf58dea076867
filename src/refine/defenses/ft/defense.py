"""Fine-tuning (baseline of Wu et al., NeurIPS 2022, "BackdoorBench"): the classifier is trained on, on clean images.

The cross-entropy of the labels of a few clean images is minimized from the given weights. Nothing draws the classifier
away from its backdoor, which is forgotten or not: it is the baseline of all defenses that fine-tune.

As in the official code, the weights after the last epoch count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import paper_by_name

NAME = "ft"


class FtRecipe(FinetuningRecipe):
    """The defaults are those of BackdoorBench."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"


class Params(FinetuningParams):
    """Attributes:
    recipe: how the classifier is fine-tuned.
    """

    recipe: Annotated[FtRecipe, BeforeValidator(paper_by_name)] = FtRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "fine-tuning"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
