"""FT-SAM (Zhu et al., ICCV 2023, "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization"):
fine-tuning that minimizes the loss of the worst weights nearby, which shrinks the large weights of a backdoor.

Each step takes the gradient g at weights w, goes to

    w + rho · w² ⊙ g / ‖|w| ⊙ g‖   (adaptive),   or   w + rho · g / ‖g‖,

takes the gradient there, goes back to w, and lets the optimizer step with it. The loss is the Kullback-Leibler
divergence from labels of which `label_smoothing` is spread over the other classes. The running statistics of batch
normalization move in the first pass alone.

The official code steps its cosine schedule of 100 steps after each batch instead of each epoch, so that the learning
rate falls and rises with a period of 200 steps and may end at its maximum. The published figures come from it, so it is
the default here (schedule `oscillating`); the schedule `cosine` is what the paper describes. The official code also
draws equally many images of each class; here the defender has the images that `defense_data` draws from all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from refine.core.params import Number, Weight
from refine.defending import repaired
from refine.defending.finetuning_recipe import FinetuningParams, FinetuningRecipe
from refine.defending.repaired import Repaired
from refine.training.recipe import Schedule, paper_by_name

NAME = "ft_sam"


class FtSamRecipe(FinetuningRecipe):
    """The defaults are those of the official code."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    schedule: Schedule = Schedule(name="oscillating", period=100)


class Params(FinetuningParams):
    """Attributes:
    rho: how far away the worst weights are looked for; the paper has 2 for CIFAR-10, and 8 for Tiny ImageNet and GTSRB.
    adaptive: scale that distance by the size of each weight.
    label_smoothing: share of a label that is spread evenly over the other classes.
    recipe: how the classifier is fine-tuned.
    """

    rho: Weight = 2.0
    adaptive: bool = True
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    recipe: Annotated[FtSamRecipe, BeforeValidator(paper_by_name)] = FtSamRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "FT-SAM"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
