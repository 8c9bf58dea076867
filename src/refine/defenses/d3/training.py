"""Distance-driven detoxification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from refine.defending.finetuning import accuracy, labeled_images, labels_of
from refine.defending.head_reset import Head, HeadReset
from refine.defending.retraining import Loss, retrained, trainable
from refine.defending.train import Task
from refine.defenses.d3.defense import NAME, Params
from refine.training.batches import Batch

_DRAWN = 0.5
"""Bound of the uniform draw; the weights are then scaled to their former length."""


def loss_of(head: Head, weight: float, bound: float) -> Loss:
    """The weighted cross-entropy above the bound, less the distance of the last layer and the given one."""
    divisor = weight + 1 if weight > 1 else 1.0

    def loss(logits: Tensor, _: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels = labels_of(batch)
        each = functional.cross_entropy(logits, labels, reduction="none")
        distance = head.distance()
        return {
            "loss": (weight * (each - bound).relu().mean() - distance) / divisor,
            "cross_entropy": each.mean(),
            "accuracy": accuracy(logits, labels),
            "distance": distance,
            "cosine": head.cosine(),
        }

    return loss


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    images, classifier = labeled_images(task), trainable(task)
    head = Head(classifier, NAME)
    head.draw(_DRAWN, task.seed, bias=False)
    head.project()
    loss = loss_of(head, params.weight, params.bound)
    return retrained(
        task, HeadReset(head, classifier, images, params.recipe, loss, task.compute, params.batch_statistics)
    )
