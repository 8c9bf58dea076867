"""What the frozen classifier says of unlabeled images, the only labels that a defense is trained with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.shards.reading.pixels import to_pixels
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.order import Columns, Part
from refine.training.recipe import Recipe
from refine.training.training_set import TrainingSet, in_order

AnswerKind = Literal["labels", "probabilities", "features"]
"""What a classifier is asked for; its last layer computes probabilities, and so labels, from features."""

_AT_MOST = 500
"""Images that the classifier is asked of at a time, where it is asked beforehand."""


class Answered:
    """A `TrainingSet` whose last field is a given answer.

    Args:
        images: of any kind.
        answers: int64 [N] or float32 [N, D] on the CPU, in the order of the shards.
    """

    def __init__(self, images: TrainingSet, answers: Tensor) -> None:
        self.side = images.side
        self.sizes = images.sizes
        self.memory = images.memory
        self._images = images
        self._answers = answers
        self._starts = [0, *accumulate(images.sizes)]

    def subset(self, selected: Tensor) -> Answered:
        return Answered(self._images.subset(selected), self._answers[selected])

    def blocks(self, parts: list[Part]) -> Iterator[Columns]:
        for part, block in zip(parts, self._images.blocks(parts), strict=True):
            start = self._starts[part.number]
            yield *block, self._answers[start + part.start : start + part.stop]

    def delivered(self, columns: Columns, device: torch.device) -> Columns:
        *own, answers = columns
        return *self._images.delivered(tuple(own), device), answers.to(device)


class PseudoLabels:
    """The classifier's answers.

    Args:
        classifier: frozen.
        recipe: of the training that they are for.
        once: ask beforehand for those of the images as they are, and not in each step for those of augmented images.
        compute: device and threads.
        precision: resolved.
        kind: of the answers that images bring along, where it is asked beforehand.

    Raises:
        UserError: features are asked for, and no linear layer makes logits of them.

    Attributes:
        classifier: folded, see `models.classifier.folded`.
    """

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        once: bool,
        compute: Compute,
        precision: str,
        kind: AnswerKind = "labels",
    ) -> None:
        self._compute = compute
        self._precision = precision
        self._once = once
        self._kind = kind
        self._at_once = min(_AT_MOST, recipe.batch_size)
        self.classifier = classifiers.folded(classifier)
        self._unfolded = classifier  # folding leaves no method `features`
        if kind == "features":
            classifiers.head_of(classifier.network, "learning features")
        self._asked = compiled(self.classifier, recipe)

    def of(self, pixels: Tensor) -> Tensor:
        """Of float [N, 3, H, W] in [0, 1], int64 [N]."""
        return self.logits_of(pixels).argmax(dim=1)

    def logits_of(self, pixels: Tensor) -> Tensor:
        """Of float [N, 3, H, W] in [0, 1], float32 [N, K]."""
        with torch.no_grad(), self._compute.autocast(self._precision):
            logits: Tensor = self._asked(pixels)
        return to_float32(logits)

    def features_of(self, pixels: Tensor) -> Tensor:
        """Of float [N, 3, H, W] in [0, 1], float32 [N, D]: the classifier's penultimate features."""
        asked = self._unfolded
        with torch.no_grad(), self._compute.autocast(self._precision):
            features: Tensor = asked.network.features(asked.normalize(pixels))  # type: ignore[operator]
        return to_float32(features)

    def logits_from(self, features: Tensor) -> Tensor:
        """The logits float32 [N, K] of features float32 [N, D]."""
        with torch.no_grad():
            logits: Tensor = self._unfolded.network.head(features)  # type: ignore[operator]
        return logits

    def of_batch(self, batch: Batch, augmented: Tensor) -> Tensor:
        """Of a batch, int64 [N]: of the images as they were augmented, or those that it brings along."""
        if not self._once:
            return self.of(augmented)
        return batch.fields[-1] if self._kind == "labels" else self.logits_of_batch(batch, augmented).argmax(dim=1)

    def logits_of_batch(self, batch: Batch, augmented: Tensor) -> Tensor:
        """The same as logits, float32 [N, K]; not where it was only asked for labels beforehand."""
        if not self._once:
            return self.logits_of(augmented)
        return self.logits_from(batch.fields[-1]) if self._kind == "features" else batch.fields[-1]

    def features_of_batch(self, batch: Batch, augmented: Tensor) -> Tensor:
        """The same as features, float32 [N, D]; not where it was asked for anything else beforehand."""
        return batch.fields[-1] if self._once else self.features_of(augmented)

    def given_to(self, images: TrainingSet) -> TrainingSet:
        """The images, of any kind; where the classifier is asked once, that happens here, and each brings its answer
        along.
        """
        if not self._once:
            return images
        device = self._compute.device
        ask = {"labels": self.of, "probabilities": self.logits_of, "features": self.features_of}[self._kind]
        answers = []
        for columns in in_order(images, self._at_once, device, "pseudo-labels"):
            pixels = to_pixels(columns[0]).contiguous(memory_format=torch.channels_last)
            answers.append(ask(pixels).cpu())
        return Answered(images, torch.cat(answers))
