"""Removing dormant features, and fine-tuning without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from refine.core.files import write_csv
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.retraining import Retraining, retrained, trainable
from refine.defending.train import Task
from refine.defending.validation import split_off
from refine.defenses.fp.defense import NAME, Params
from refine.models.classifier import Classifier, head_of
from refine.models.device import Compute, to_float32
from refine.shards.reading.pixels import to_pixels
from refine.training.training_set import TrainingSet, in_order

PRUNED = "pruned.csv"
"""Each step: how many features were removed, and the accuracy on images for validation; beside the weights."""
_AT_ONCE = 256


class Pruned(Retraining):
    """Retraining of a classifier without some of its features.

    Args:
        head: its last layer.
        removed: which of the layer's inputs, bool [D].
        of: arguments of `Retraining`.
    """

    def __init__(self, head: nn.Linear, removed: Tensor, *of: Any) -> None:
        super().__init__(*of)
        self.head, self.removed = head, removed
        clear(head, removed)

    def update(self, optimizer: Optimizer) -> None:
        """See `training.loop.Updates`."""
        optimizer.step()
        clear(self.head, self.removed)


@torch.no_grad()
def clear(head: nn.Linear, removed: Tensor) -> None:
    """Makes a layer deaf to some of its inputs, bool [D]."""
    head.weight[:, removed] = 0.0


@torch.no_grad()
def seen(classifier: Classifier, images: TrainingSet, compute: Compute) -> tuple[Tensor, Tensor]:
    """Features float32 [N, D] of all images, and their labels int64 [N], on the device."""
    found = []
    for pixels, labels in in_order(images, _AT_ONCE, compute.device, "features"):
        normalized = classifier.normalize(to_pixels(pixels))
        found.append((to_float32(classifier.network.features(normalized)), labels))  # type: ignore[operator]
    features, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return features, labels


@torch.no_grad()
def dormant(
    head: nn.Linear, features: Tensor, labels: Tensor, held: Tensor, params: Params
) -> tuple[Tensor, list[tuple[int, float]]]:
    """The features to remove.

    Args:
        head: from features to logits; it stays as it is.
        features: float32 [N, D].
        labels: int64 [N].
        held: images for validation, which tell the accuracy, bool [N]; the others tell which features are dormant.
        params: of the defense.

    Returns:
        bool [D], and for each step the number of features removed and the accuracy, with the one that was too much.
    """
    order = features[~held].mean(dim=0).argsort(stable=True)
    removed = torch.zeros(len(order), dtype=torch.bool, device=order.device)

    def accuracy(without: Tensor) -> float:
        answers = head(features[held] * ~without).argmax(dim=1)
        return float((answers == labels[held]).double().mean())

    least = (1 - params.most_loss) * accuracy(removed)
    at_once = min(max(1, round(params.at_once * len(order))), len(order) - 1)
    steps = []
    for count in range(at_once, len(order), at_once):
        tried = torch.zeros_like(removed)
        tried[order[:count]] = True
        steps.append((count, accuracy(tried)))
        if steps[-1][1] < least:
            break
        removed = tried
    return removed, steps


def train(task: Task) -> str:
    """See `defending.train.Task`.

    Raises:
        UserError: the network does not end in a linear layer, or there are too few images.
    """
    params: Params = task.settings
    images, classifier = labeled_images(task), trainable(task)
    head = head_of(classifier.network, NAME)
    held = split_off(images, params.validation, task.seed, f"defense_settings.{NAME}.validation")
    features, labels = seen(classifier.eval(), images, task.compute)
    removed, steps = dormant(head, features, labels, held.to(features.device), params)
    write_csv(task.folder / PRUNED, ("removed", "validation_accuracy"), steps)
    of = classifier, images, params.recipe, cross_entropy, task.compute, params.batch_statistics
    return retrained(task, Pruned(head, removed, *of))
