"""What the frozen classifier says of unlabeled images, the only labels that a defense is trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from refine.core.progress import progress
from refine.defenses.refine.training.labeled import Labeled
from refine.defenses.refine.training.params import TrainRefineParams
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.models.device import Compute
from refine.shards.reading.pixels import to_pixels
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.order import Part
from refine.training.training_set import TrainingSet

_AT_MOST = 500
"""Images that the classifier is asked of at a time, where it is asked beforehand."""


class PseudoLabels:
    """The classifier's answers.

    Args:
        classifier: frozen.
        params: of the stage; they say when it is asked.
        compute: device and threads.
        precision: resolved.

    Attributes:
        classifier: folded, see `models.classifier.folded`.
    """

    def __init__(self, classifier: Classifier, params: TrainRefineParams, compute: Compute, precision: str) -> None:
        self._compute = compute
        self._precision = precision
        self._once = params.pseudo_labels == "once"
        self._at_once = min(_AT_MOST, params.recipe.batch_size)
        self.classifier = classifiers.folded(classifier)
        self._asked = compiled(self.classifier, params.recipe)

    def of(self, pixels: Tensor) -> Tensor:
        """Of float [N, 3, H, W] in [0, 1], int64 [N]."""
        with torch.no_grad(), self._compute.autocast(self._precision):
            labels: Tensor = self._asked(pixels).argmax(dim=1)
        return labels

    def of_batch(self, batch: Batch, augmented: Tensor) -> Tensor:
        """Of a batch: of the images as they were augmented, or those that it brings along."""
        return batch.fields[-1] if self._once else self.of(augmented)

    def given_to(self, images: TrainingSet) -> TrainingSet:
        """The images; where the classifier is asked once, that happens here, and each brings its label along."""
        if not self._once:
            return images
        device = self._compute.device
        parts = [Part(number, 0, size) for number, size in enumerate(images.sizes) if size]
        labels = []
        for block in progress(images.blocks(parts), "pseudo-labels", len(parts)):
            for columns in zip(*(torch.split(column, self._at_once) for column in block), strict=True):
                pixels = to_pixels(images.delivered(columns, device)[0])
                labels.append(self.of(pixels.contiguous(memory_format=torch.channels_last)).cpu())
        return Labeled(images, torch.cat(labels))
