"""FP, fine-pruning (Liu et al., RAID 2018): what clean images hardly use is removed, then the rest is fine-tuned.

The features that the last layer reads are sorted by their mean over clean images. The lowest ones are removed, a
hundredth of all at a time, as long as the accuracy stays above (1 - most_loss) of what it was. Then the classifier is
fine-tuned, without them.

The official code in BackdoorBench asks the *test* images when to stop, and keeps one step of pruning too many, as its
copy of the last good network is no copy. Here a tenth of the defender's labeled images decides. A feature is removed
by its column of the last layer's weights; in networks that pool the last maps, that is a channel of the last
convolutions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from refine.core.params import Number, Share
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import paper_by_name

NAME = "fp"


class FpRecipe(FinetuningRecipe):
    """The defaults are those of BackdoorBench."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"


class Params(FinetuningParams):
    """Attributes:
    at_once: share of the features that is removed at a time.
    most_loss: of the accuracy on the images for validation, as a share of what it was, at which removing stops.
    validation: share of the labeled images that tells the accuracy.
    recipe: how the classifier is fine-tuned then, on all labeled images.
    """

    at_once: Annotated[Number, Field(gt=0, le=1)] = 0.01
    most_loss: Share = 0.1
    validation: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    recipe: Annotated[FpRecipe, BeforeValidator(paper_by_name)] = FpRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "fine-pruning"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
