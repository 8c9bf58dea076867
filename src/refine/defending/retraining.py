"""Training a classifier's network for a defense: from the weights that were given, or from new ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Generator, Tensor, nn

from refine.defending.train import Task
from refine.models import classifier as classifiers
from refine.models.card import WEIGHTS
from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.models.layout import channels_last
from refine.shards.reading.tensors import save_tensors
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.lone_image import refuse_lone_image
from refine.training.loop import Epochs, Run, Step, Weights, batches_of, write_history
from refine.training.recipe import Recipe
from refine.training.training_set import TrainingSet

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, Batch], dict[str, Tensor]]
"""From logits float32 [B, K] of augmented pixels float [B, 3, H, W] of a batch to figures of the history; `loss` among
them is minimized."""


@dataclass
class Retraining:
    """Trains the network of a classifier; see `training.loop.Task`.

    Attributes:
        classifier: on its device, with gradients; see `trainable` and `fresh`.
        images: that it is trained on.
        recipe: how; replaced by what its `lasting` gives for these images.
        loss: of a batch.
        compute: device and threads.
        batch_statistics: normalize by the statistics of the batch and let them move the running ones, as training
            does; without it, the running ones are used and stay.
        epoch: number of the current one, from 1, for losses that depend on it.
    """

    classifier: Classifier
    images: TrainingSet
    recipe: Recipe
    loss: Loss
    compute: Compute
    batch_statistics: bool = True
    epoch: int = 0
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = self.classifier.network
        self.batches: Epochs = batches_of(self.images, self.recipe, self.compute)
        self.recipe = self.recipe.lasting(len(self.batches))
        if self.batch_statistics:
            refuse_lone_image(self.module, self.images, self.recipe, self.compute)
        self.generator = Generator(self.compute.device)
        self._precision = self.compute.precision(self.recipe.precision)
        self._forward = compiled(self.classifier, self.recipe)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def step(self, batch: Batch) -> Step:
        return self.step_on(self.augmented(batch), batch)

    def augmented(self, batch: Batch) -> Tensor:
        """The batch's images as the recipe changes them, float [B, 3, H, W]."""
        if not self.batch_statistics:
            keep_statistics(self.module)
        with torch.no_grad():
            return augment(batch.pixels, self.recipe.augment, self.generator)

    def step_on(self, pixels: Tensor, batch: Batch) -> Step:
        """Loss and figures of augmented pixels."""
        with self.compute.autocast(self._precision):
            logits = self._forward(pixels)
        terms = self.loss(to_float32(logits), pixels, batch)
        return Step(terms["loss"] * batch.loss_weight, {name: value.detach() for name, value in terms.items()})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Nothing to keep: the last epoch counts (no selection)."""


def own_seed(seed: int) -> int:
    """The seed of a defender's new weights, below 2**32, as torch takes no more of it on CPUs.

    With the seed itself they would be those that a classifier of the same seed began with, which no defender has, and
    near which a student stays like its teacher.
    """
    digest = blake2b(seed.to_bytes(8, "little"), digest_size=4, person=b"new weights").digest()
    return int.from_bytes(digest, "little")


def trainable(task: Task) -> Classifier:
    """A copy of the classifier that may change, on the task's device; what its architecture does not learn stays."""
    made = deepcopy(task.classifier)
    with torch.device("meta"):
        like = classifiers.like(task.card)
    for own, other in zip(made.parameters(), like.parameters(), strict=True):
        own.requires_grad_(other.requires_grad)
    return _ready(made, task.compute)


def fresh(task: Task) -> Classifier:
    """A classifier of the same architecture with new weights, drawn by the task's seed (see `own_seed`), on its device.

    Weights that the architecture computes from images instead of learning them stay frozen.
    """
    torch.manual_seed(own_seed(task.seed))
    return _ready(classifiers.like(task.card), task.compute)


def _ready(classifier: Classifier, compute: Compute) -> Classifier:
    classifier.input_side = None  # training need not look at each value of each batch
    return channels_last(classifier.to(compute.device))


def keep_statistics(network: nn.Module) -> None:
    """Puts batch normalization into eval mode and leaves all else as it is."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def unchanged(task: Task, reason: str) -> str:
    """Writes the weights as they were given, with an empty history, for a defense that abstains.

    Args:
        task: of the defense.
        reason: for the log.

    Returns:
        SHA-256 of the weights.
    """
    log.warning("the classifier stays as it is: %s", reason)
    write_history(task.folder / "history.csv", [])
    return save_tensors(task.folder / WEIGHTS, task.classifier.network.state_dict())


def retrained(task: Task, retraining: Retraining) -> str:
    """Trains to the end and writes weights and history into the task's folder.

    Returns:
        SHA-256 of the weights.

    Raises:
        UserError: the loss or the weights are no longer finite.
    """
    recipe = retraining.recipe
    name = recipe.place.split(".")[1]
    history = Run(retraining, recipe, f"train-defense@{name}", task.seed, task.compute, task.checkpoints).train()
    write_history(task.folder / "history.csv", history)
    return save_tensors(task.folder / WEIGHTS, retraining.module.state_dict())
