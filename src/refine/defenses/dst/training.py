"""Training of D-ST: features on all samples, then a linear head on those of the two groups."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.core.errors import UserError
from refine.defending.retraining import Loss, Retraining, fresh, retrained, unchanged
from refine.defending.train import Task
from refine.defenses.dst.contrast import contrast
from refine.defenses.dst.defense import NAME, Params
from refine.models.classifier import Classifier, head_of, init_from_data
from refine.models.device import Compute, to_float32
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.loop import Run, Step, Weights, batches_of, write_history
from refine.training.training_set import TrainingSet, in_order

PROJECTION = 128
_AT_ONCE = 1024
_FIELDS = ("label", "split_clean", "split_poisoned")


class Projected(nn.Module):
    """A classifier's features under a projection head: pixels float [N, 3, H, W] to unit vectors float32 [N, 128]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        width = head_of(classifier.network, NAME).in_features
        self.classifier = classifier
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTION))

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.classifier.network.features(self.classifier.normalize(pixels))  # type: ignore[operator]
        return functional.normalize(to_float32(self.projection(features)), dim=1)


@dataclass
class Extracting:
    """Trains features; see `training.loop.Task`."""

    classifier: Classifier
    images: TrainingSet
    params: Params
    compute: Compute
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe = self.params.extractor
        self.module = Projected(self.classifier).to(self.compute.device)
        self.batches = batches_of(self.images, recipe, self.compute)
        self.generator = Generator(self.compute.device)
        self._precision = self.compute.precision(recipe.precision)
        self._forward = compiled(self.module, recipe)

    def step(self, batch: Batch) -> Step:
        labels, clean, _ = batch.fields
        with torch.no_grad():
            pixels = augment(batch.pixels.repeat(2, 1, 1, 1), self.params.extractor.augment, self.generator)
        with self.compute.autocast(self._precision):
            views = self._forward(pixels)
        loss = contrast(views, labels, clean.bool(), self.params.temperature, self.params.positives).mean()
        return Step(loss * batch.loss_weight, {"loss": loss.detach()})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Nothing to keep: the last epoch counts (no selection)."""


class Heading(Retraining):
    """Trains a head; all else stays in eval mode."""

    def augmented(self, batch: Batch) -> Tensor:
        self.module.eval()
        return super().augmented(batch)


def train(task: Task) -> str:
    """See `defending.train.Task`.

    Raises:
        UserError: no sample is held for clean.
    """
    params: Params = task.settings
    if task.split is not None and task.split.abstain:
        write_history(task.folder / "extractor_history.csv", [])
        return unchanged(task, f"split {task.split.name}, {task.split.gate}")
    images = task.open_images(_FIELDS)
    clean, poisoned = groups(images, task.compute)
    if not clean.any():
        raise UserError(
            f"defense_settings.{NAME}.split: {params.split} holds no training image for clean, and the head would have "
            "nothing to learn; choose another split"
        )
    made = fresh(task)
    extracting = Extracting(made, images, params, task.compute)
    heading = Heading(
        made, images.subset(clean | poisoned), params.head, head_loss(params), task.compute, batch_statistics=False
    )
    init_from_data(made, lambda: next(iter(extracting.batches.epoch(task.seed))).pixels)
    kept = task.checkpoints.part("extractor") if task.checkpoints else None
    name = f"train-defense@{NAME}-extractor"
    history = Run(extracting, params.extractor, name, task.seed, task.compute, kept).train()
    write_history(task.folder / "extractor_history.csv", history)
    made.requires_grad_(False)
    made.network.get_submodule("head").requires_grad_(True)
    return retrained(task, heading)


def groups(images: TrainingSet, compute: Compute) -> tuple[Tensor, Tensor]:
    """Which samples are held for clean and which for poisoned, bool [N] each, in the order of the shards."""
    flags = [columns[2:] for columns in in_order(images, _AT_ONCE, compute.device, "groups")]
    clean, poisoned = (torch.cat(columns).bool().cpu() for columns in zip(*flags, strict=True))
    return clean, poisoned


def head_loss(params: Params) -> Loss:
    """Of the logits of a batch, see `defending.retraining.Loss`; a part that the batch lacks adds nothing."""

    def loss(logits: Tensor, _: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels, clean, poisoned = batch.fields
        each = functional.cross_entropy(logits, labels, reduction="none")
        means = [(each * group).sum() / group.sum().clamp(min=1) for group in (clean, poisoned)]
        right = (logits.argmax(dim=1) == labels) * clean
        return {
            "loss": means[0] - params.poisoned_weight * means[1],
            "clean": means[0],
            "poisoned": means[1],
            "accuracy": right.sum() / clean.sum().clamp(min=1),
        }

    return loss
