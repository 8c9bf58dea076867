"""Training of the network whose features tell poisoned from clean images, and the FCT after each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.shards.reading.pixels import to_pixels
from refine.splits.sd.transformation import Draws, transformed
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.loop import Step, Weights, batches_of
from refine.training.order import Columns
from refine.training.recipe import Recipe
from refine.training.training_set import TrainingSet, in_order

_AT_ONCE = 256
"""Images whose features are computed together."""


def intra(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How similar the directions of the classes' mean features are, 1/C^2 sum_{i != j} c_i c_j over C classes.

    Args:
        features: float [B, d].
        labels: int64 [B]; C of the classes occur.
        classes: number of all classes.

    Returns:
        A scalar: (C - 1) / C for classes of one direction, 0 for orthogonal ones; at least -1 / C.
    """
    member = functional.one_hot(labels, classes).to(features.dtype)
    present = member.sum(dim=0) > 0
    centers = functional.normalize((member.T @ features)[present], dim=1)
    return (centers.sum(dim=0).square().sum() - centers.square().sum()) / len(centers) ** 2


@dataclass(frozen=True)
class Measure:
    """Feature consistency toward transformations (FCT) of all images of a training set.

    Attributes:
        images: N images, of any kind, in the order of their shards.
        draws: the transformations of all images, one entry for each of those that are averaged.
        compute: device and threads.
        precision: of the features, resolved.
    """

    images: TrainingSet
    draws: list[Draws]
    compute: Compute
    precision: str

    @torch.no_grad()
    def of(self, classifier: Classifier) -> dict[str, Tensor]:
        """`fct`, the mean over draws and features of (g(x) - g(t(x)))^2, and `norm`, that of g(x); float32 [N] each."""
        found: dict[str, list[Tensor]] = {"fct": [], "norm": []}
        classifier.eval()
        for rows, images, *_ in self._delivered():
            pixels = to_pixels(images).contiguous(memory_format=torch.channels_last)
            own = self._features(classifier, pixels)
            others = (
                self._features(classifier, transformed(pixels, draw[rows].to(pixels.device))) for draw in self.draws
            )
            each = [(own - other).square().mean(dim=1) for other in others]
            found["fct"].append(torch.stack(each).mean(dim=0).cpu())
            found["norm"].append(own.norm(dim=1).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _features(self, classifier: Classifier, pixels: Tensor) -> Tensor:
        features: Any = classifier.network.features
        with self.compute.autocast(self.precision):
            return to_float32(features(classifier.normalize(pixels)))

    def fields(self) -> Columns:
        """The fields of all images, int64 [N] each, on the CPU."""
        columns = zip(*(each for _, _, *each in self._delivered()), strict=True)
        return tuple(torch.cat(parts).cpu() for parts in columns)

    def _delivered(self) -> Iterator[tuple[Any, ...]]:
        """Places of some images, the images uint8 [n, 3, side, side], and their fields."""
        start = 0
        for columns in in_order(self.images, _AT_ONCE, self.compute.device, "FCT"):
            yield slice(start, start + len(columns[0])), *columns
            start += len(columns[0])


class _Both(nn.Module):
    """Features and logits of a classifier at once, so that batch normalization sees each batch once."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self._classifier = classifier

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels float [B, 3, H, W] in [0, 1] to float [B, d] and [B, K]."""
        network: Any = self._classifier.network
        features: Tensor = network.features(self._classifier.normalize(pixels))
        return features, network.head(features)


@dataclass
class Sensitive:
    """First a backdoored classifier, then one whose classes are apart in its features; see `training.loop.Task`.

    Attributes:
        classifier: its network is trained.
        images: with their given labels as first field.
        recipe: how.
        backdoor_epochs: the first epochs, with cross-entropy alone (step A); the others are step B.
        intra_ce_weight: of the cross-entropy in step B.
        measure: of the FCT.
        compute: device and threads.
        kept: the measure after each epoch.
    """

    classifier: Classifier
    images: TrainingSet
    recipe: Recipe
    backdoor_epochs: int
    intra_ce_weight: float
    measure: Measure
    compute: Compute
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module: nn.Module = self.classifier.network
        self.batches = batches_of(self.images, self.recipe, self.compute)
        self.generator = Generator(self.compute.device)
        self._precision = self.compute.precision(self.recipe.precision)
        self._forward = compiled(_Both(self.classifier), self.recipe)

    def step(self, batch: Batch) -> Step:
        with torch.no_grad():
            pixels = augment(batch.pixels, self.recipe.augment, self.generator)
        with self.compute.autocast(self._precision):
            features, logits = self._forward(pixels)
        labels, logits = batch.fields[0], to_float32(logits)
        entropy = functional.cross_entropy(logits, labels)
        apart = intra(to_float32(features), labels, logits.shape[1])
        if len(self.kept) < self.backdoor_epochs:
            loss = entropy
        elif self.intra_ce_weight:
            loss = apart + self.intra_ce_weight * entropy
        else:
            loss = apart  # without a gradient, the last layer stays: weight decay does not touch it either
        right = (logits.argmax(dim=1) == labels).float().mean()
        terms = {"loss": loss, "cross_entropy": entropy, "intra": apart, "train_accuracy": right}
        return Step(loss * batch.loss_weight, {name: value.detach() for name, value in terms.items()})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Measures the FCT. How many were measured tells `step` the epoch, also after a restart."""
        measured = deepcopy(self.classifier)
        measured.network.load_state_dict(weights)
        self.kept[f"fct-{epoch:06d}"] = self.measure.of(measured)
