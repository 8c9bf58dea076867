"""Guards of D-BR: they notice that raising the loss destroys the classifier."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.shards.reading.pixels import to_pixels
from refine.training.batches import Batch
from refine.training.loop import Epochs, Weights
from refine.training.order import Columns
from refine.training.training_set import TrainingSet, in_order

log = logging.getLogger(__name__)

LARGEST_FALL = 0.10
"""Of the accuracy on held-out images."""
_AT_ONCE = 256


class Cap:
    """Ends the ascent on images whose labels the classifier has unlearned.

    It looks at the classifier as it answers, with its running statistics. A batch of nothing but D_p has other
    statistics, with which its cross-entropy is far larger long before the trigger is unlearned.

    Args:
        classifier: that is trained.
        compute: device and threads.
        precision: resolved.
        cap: times ln K, the cross-entropy of guessing among K classes.
    """

    def __init__(self, classifier: Classifier, compute: Compute, precision: str, cap: float) -> None:
        self._classifier = classifier
        self._compute = compute
        self._precision = precision
        self._cap = cap

    @torch.no_grad()
    def leaves_room(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """1 for images whose cross-entropy is at most the cap, 0 for others; float32 [B].

        Args:
            pixels: float [B, 3, H, W] in [0, 1].
            labels: int64 [B], as given.
        """
        in_training = [module for module in self._classifier.modules() if module.training]
        self._classifier.eval()
        with self._compute.autocast(self._precision):
            logits = to_float32(self._classifier(pixels))
        for module in in_training:
            module.training = True
        entropy = functional.cross_entropy(logits, labels, reduction="none")
        return (entropy <= self._cap * math.log(logits.shape[1])).to(entropy.dtype)


class HeldOut:
    """Watches the accuracy on images that no step sees.

    Args:
        classifier: that is trained.
        images: with their labels as first field.
        compute: device and threads.
        precision: resolved.
        kept: of the task; holds the accuracy after each epoch, and so survives a restart.
    """

    def __init__(
        self, classifier: Classifier, images: TrainingSet, compute: Compute, precision: str, kept: dict[str, Weights]
    ) -> None:
        self._classifier = classifier
        self._images = images
        self._compute = compute
        self._precision = precision
        self._kept = kept
        self.before = self._accuracy()
        self._good: Weights = {}

    @property
    def fallen(self) -> int | None:
        """The epoch after which accuracy had fallen too far; None so far."""
        return next((epoch for epoch, value in self.history if value < self.before - LARGEST_FALL), None)

    @property
    def history(self) -> list[tuple[int, float]]:
        """Epoch and accuracy after it."""
        return [(int(name.rpartition("-")[2]), float(each["accuracy"])) for name, each in sorted(self._kept.items())]

    def remember(self) -> None:
        """Takes the weights down as the last good ones."""
        self._good = {name: value.detach().clone() for name, value in self._classifier.network.state_dict().items()}

    def look(self, epoch: int) -> None:
        """Measures, and takes the last good weights back where accuracy has fallen too far."""
        if self.fallen is not None:
            return
        self._kept[f"held-out-{epoch:06d}"] = {"accuracy": torch.tensor(self._accuracy(), dtype=torch.float64)}
        if self.fallen is not None:
            self._classifier.network.load_state_dict(self._good)
            log.warning("%s; the weights before it are taken back and nothing more is changed", self.sentence)

    @property
    def sentence(self) -> str:
        """What happened, without a full stop."""
        if self.fallen is None:
            return "no guard stopped it"
        accuracy = dict(self.history)[self.fallen]
        return f"accuracy on held-out images fell from {self.before:.1%} to {accuracy:.1%} in epoch {self.fallen}"

    @torch.no_grad()
    def _accuracy(self) -> float:
        network = self._classifier.network.eval()
        right, count = 0, 0
        for images, labels, *_ in in_order(self._images, _AT_ONCE, self._compute.device, "held-out images"):
            pixels = to_pixels(images).contiguous(memory_format=torch.channels_last)
            with self._compute.autocast(self._precision):
                logits = network(self._classifier.normalize(pixels))
            right += int((logits.argmax(dim=1) == labels).sum())
            count += len(labels)
        return right / count


class Passes:
    """Epochs one after the other, as one.

    Args:
        passes: of the images.
        watch: after which there are no more batches, where it says so.
    """

    def __init__(self, passes: Sequence[Epochs], watch: HeldOut | None) -> None:
        self._passes = passes
        self._watch = watch

    def __len__(self) -> int:
        return sum(len(each) for each in self._passes)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One epoch of each."""
        if self._watch is not None:
            if self._watch.fallen is not None:
                return
            self._watch.remember()
        for number, each in enumerate(self._passes):
            yield from each.epoch(seed + number)


def fields(images: TrainingSet, compute: Compute) -> Columns:
    """The fields of all images, int64 [N] each, on the CPU."""
    columns = zip(*(each[1:] for each in in_order(images, _AT_ONCE, compute.device, "groups")), strict=True)
    return tuple(torch.cat(parts).cpu() for parts in columns)
