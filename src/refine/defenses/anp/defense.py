"""ANP, adversarial neuron pruning (Wu and Wang, NeurIPS 2021): channels that react most to noise are removed.

Each channel of a batch normalization that follows a convolution gets a mask m in [0, 1] on its scale. Noise on scales
and shifts is drawn uniformly from ±noise, and takes one step of that length in the direction in which the loss grows.
The masks are trained with

    clean_weight · CE(masked) + (1 - clean_weight) · CE(masked, with noise),

and all weights stay. A backdoor's channels react most, so that their masks fall. Channels whose mask is at most a
threshold are removed: their scale becomes zero, and the shift stays.

The official code in BackdoorBench takes the threshold with the lowest attack success rate on the *test* images, which
no defender knows. Here it is the largest one, of 0, 0.05 ... 0.9, that costs at most `most_loss` of the accuracy on a
tenth of the defender's labeled images. As there, masks are trained with batch statistics, but the running ones of the
classifier stay as they were. Channels whose batch normalization has no scale (`airbench`) are removed with filter and
running mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Number, Section, Share, Weight
from refine.defending import repaired
from refine.defending.repaired import Repaired
from refine.training.recipe import Augment, DefenderRecipe, Optimizer, Schedule, paper_by_name

NAME = "anp"


class AnpRecipe(DefenderRecipe):
    """The paper's: 2,000 steps."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 1
    min_steps: Annotated[int, Field(ge=0, le=999_999)] = 2000
    batch_size: BatchSize = 256
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.2, weight_decay=0.0)
    schedule: Schedule = Schedule(name="step", milestones=[])
    augment: Augment = Augment(shift=4, flip=0.5)


class Params(Section):
    """Attributes:
    noise: on scales and shifts, as a share of them.
    clean_weight: of the loss without noise; that with noise has the rest.
    most_loss: of the accuracy on the images for validation, as a difference.
    validation: share of the labeled images that tells this accuracy; masks are trained on the others.
    recipe: how the masks are trained.
    """

    noise: Weight = 0.4
    clean_weight: Share = 0.2
    most_loss: Share = 0.03
    validation: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    recipe: Annotated[AnpRecipe, BeforeValidator(paper_by_name)] = AnpRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "ANP"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
