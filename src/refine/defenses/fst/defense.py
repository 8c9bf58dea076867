"""FST, feature shift tuning (Min et al., NeurIPS 2023, "Towards Stable Backdoor Purification through Feature Shift
Tuning"): a new last layer, unlike the given one, makes the features change.

Where clean and triggered images have features apart, fine-tuning leaves the features as they are and the backdoor with
them. So the weights W of the last layer are drawn anew, uniformly from ±1/√D for D features, and all layers are trained
with

    cross-entropy + alpha · ⟨W, W0⟩,    W ← W · ‖W0‖ / ‖W‖ after each step,

where W0 are the given weights.

The paper gives 2 % of the training images to the defender; here `defense_data.labeled` says how many it gets. As in the
official code, the bias of the last layer is drawn anew as well and is not projected, and there is no weight decay. An
architecture without that bias has none to draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Weight
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import Optimizer, paper_by_name

NAME = "fst"


class FstRecipe(FinetuningRecipe):
    """The defaults are those of the paper."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 10
    batch_size: BatchSize = 128
    optimizer: Optimizer = Optimizer(lr=0.01, weight_decay=0.0)


class Params(FinetuningParams):
    """Attributes:
    alpha: weight of the inner product of the last layer and the given one; the official script's own default is 0.2.
    recipe: how the classifier is fine-tuned.
    """

    alpha: Weight = 0.1
    recipe: Annotated[FstRecipe, BeforeValidator(paper_by_name)] = FstRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "FST"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
