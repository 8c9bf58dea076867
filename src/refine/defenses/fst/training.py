"""Feature shift tuning."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from refine.defending.finetuning import accuracy, labeled_images, labels_of
from refine.defending.head_reset import Head, HeadReset
from refine.defending.retraining import Loss, retrained, trainable
from refine.defending.train import Task
from refine.defenses.fst.defense import NAME, Params
from refine.training.batches import Batch


def loss_of(head: Head, alpha: float) -> Loss:
    """Cross-entropy and the weighted inner product of the last layer and the given one."""

    def loss(logits: Tensor, _: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels = labels_of(batch)
        entropy = functional.cross_entropy(logits, labels)
        return {
            "loss": entropy + alpha * head.alignment(),
            "cross_entropy": entropy,
            "accuracy": accuracy(logits, labels),
            "cosine": head.cosine(),
        }

    return loss


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    images, classifier = labeled_images(task), trainable(task)
    head = Head(classifier, NAME)
    head.draw(head.weight.shape[1] ** -0.5, task.seed, bias=True)
    loss = loss_of(head, params.alpha)
    return retrained(
        task, HeadReset(head, classifier, images, params.recipe, loss, task.compute, params.batch_statistics)
    )
