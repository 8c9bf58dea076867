"""Fine-tuning a classifier on few labeled clean images, for the defenses that differ in loss or step alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from refine.defending.train import Task
from refine.training.batches import Batch
from refine.training.training_set import TrainingSet


def labeled_images(task: Task) -> TrainingSet:
    """The images that a defender is given, each with its label; see `Task.open_images`."""
    return task.open_images(("label",))


def labels_of(batch: Batch) -> Tensor:
    """The labels of a batch of `labeled_images`, int64 [B]."""
    return batch.fields[0]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the images that are classified as their labels say, float32 scalar; logits [B, K], labels int64 [B]."""
    return (logits.argmax(dim=1) == labels).to(torch.float32).mean()


def cross_entropy(logits: Tensor, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
    """See `defending.retraining.Loss`; the plain loss of fine-tuning."""
    del pixels
    labels = labels_of(batch)
    return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}
