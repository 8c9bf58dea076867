"""D-ST (Chen, Wu, Wang, NeurIPS 2022, "Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples").

Two-stage secure training: a new classifier from a poisoned training set in which some samples are held for clean, some
for poisoned, and most for neither (see `split`). The labels of a sample are only believed where it is held for clean.

1. The network's features are trained on all images by a semi-supervised contrastive loss. With two random views of each
   of B images, u_i the normalized projection of view i, and P(i) its positives,
   L = -(tau / 0.07) mean_i mean_{j in P(i)} [u_i u_j / tau - ln sum_{a != i} exp(u_i u_a / tau)].
   The positives of a view of a clean sample are all views with its label; any other view has its own second view alone.
2. The features are frozen, and a linear head learns CE(clean samples) - 0.001 CE(poisoned samples).

The weights of the classifier that was given are not used, only its architecture.

Where the split says that its groups cannot be trusted, the classifier stays as it was given (`gate: ignore` of the
split goes on).

The official code keeps the head that is best on clean test images; here the last one counts. It has no answer to a
batch without clean or without poisoned samples; here that part is then left out. Its learning rate counts epochs from
1, ours from 0. As there, the positives of a clean sample include samples that are not held for clean
(`positives: label_any`). Other authors' reproduction (BackdoorBench) finds an ASR of about 80 % for many attacks where
the paper reports less than 1 %: the method depends on the split.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import PositiveNumber, Section, Weight
from refine.defending import repaired
from refine.defending.repaired import Repaired
from refine.training.recipe import Augment, Jitter, Optimizer, Recipe, Schedule

NAME = "dst"
Positives = Literal["label_any", "label_clean_only"]

_CHANGES = Augment(crop_scale=0.2, flip=0.5, jitter=Jitter(), grayscale=0.2)


class ExtractorRecipe(Recipe):
    """The published training of the features."""

    place: ClassVar[str] = f"defense_settings.{NAME}.extractor"

    epochs: Epochs = 200
    batch_size: BatchSize = 512
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.5, weight_decay=1e-4)
    schedule: Schedule = Schedule(name="cosine", floor=0.001, rise=0.05, start=0.02)
    augment: Augment = _CHANGES


class HeadRecipe(Recipe):
    """The published training of the head."""

    place: ClassVar[str] = f"defense_settings.{NAME}.head"

    epochs: Epochs = 10
    batch_size: BatchSize = 512
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=5.0, weight_decay=0.0)
    schedule: Schedule = Schedule(milestones=[])
    augment: Augment = _CHANGES


class Params(Section):
    """Attributes:
    split: how the training set is split into clean, poisoned and uncertain samples.
    temperature: tau of the contrastive loss.
    positives: of a view of a clean sample, all views with its label (`label_any`), or only those among them of samples
        that are held for clean (`label_clean_only`).
    poisoned_weight: of the loss of poisoned samples, which the head raises.
    extractor: how the features are trained.
    head: how the head is trained.
    """

    split: str = "sd"
    temperature: PositiveNumber = 0.1
    positives: Positives = "label_any"
    poisoned_weight: Weight = 0.001
    extractor: ExtractorRecipe = ExtractorRecipe()
    head: HeadRecipe = HeadRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "D-ST"
    regime = "poisoned_train"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
