"""Plain fine-tuning."""

from __future__ import annotations

from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.retraining import Retraining, retrained, trainable
from refine.defending.train import Task
from refine.defenses.ft.defense import Params


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    images = labeled_images(task)
    return retrained(
        task, Retraining(trainable(task), images, params.recipe, cross_entropy, task.compute, params.batch_statistics)
    )
