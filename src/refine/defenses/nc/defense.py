"""NC, Neural Cleanse (Wang et al., S&P 2019): a trigger that is inverted from the classifier is unlearned.

For each class, the smallest patch is sought that sends the labeled images to it (`defending.inversion`). Classes whose
patch is far smaller than the others' are suspicious: those with an anomaly index above `most_index`, as in the sign
`neural_cleanse`. Then the classifier is fine-tuned on the labeled images, of which a share has a suspicious class's
patch and the true label all the same. Without a suspicious class, or with
fewer than five classes, the classifier stays as it is.

The published index is of the areas of the patches, ours of their logarithms, see `defending.inversion.anomaly`. The
published search goes on for 80 epochs and changes the weight of the patch's size after several steps of success; ours
has a fixed number of steps and changes it at each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from refine.core.params import Number, PositiveNumber
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.inversion import Search
from refine.defending.repaired import Repaired
from refine.training.recipe import paper_by_name

NAME = "nc"


class NcRecipe(FinetuningRecipe):
    """The defaults are those of BackdoorBench."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"


class NcSearch(Search):
    """More steps than the sign `neural_cleanse` takes: about a fifth of BackdoorBench's on 2,500 images."""

    steps: Annotated[int, Field(ge=10, le=100_000)] = 200


class Params(FinetuningParams):
    """Attributes:
    images: most labeled images that the search uses.
    search: how the patch of a class is sought.
    most_index: anomaly index from which a class is suspicious; published is 2.
    share: of the images of a batch that get a suspicious class's patch.
    recipe: how the classifier is fine-tuned.
    """

    images: Annotated[int, Field(ge=1, le=100_000)] = 2500
    search: NcSearch = NcSearch()
    most_index: PositiveNumber = 2.0
    share: Annotated[Number, Field(gt=0, le=1)] = 0.2
    recipe: Annotated[NcRecipe, BeforeValidator(paper_by_name)] = NcRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "Neural Cleanse"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
