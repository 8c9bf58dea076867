"""Training of the distilled student."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from refine.defending.pseudo_labels import PseudoLabels
from refine.defending.retraining import Retraining, fresh, retrained
from refine.defending.train import Task
from refine.defenses.distilled.defense import Params
from refine.models.classifier import init_from_data
from refine.models.device import to_float32
from refine.training.batches import Batch


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    compute = task.compute
    images = task.open_images()
    teacher = task.classifier.to(compute.device)
    precision = compute.precision(params.recipe.precision)
    answers = PseudoLabels(teacher, params.recipe, params.asked == "once", compute, precision)
    images = answers.given_to(images)

    def of_labels(logits: Tensor, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels = answers.of_batch(batch, pixels)
        return {
            "loss": functional.cross_entropy(logits, labels),
            "agreement": (logits.argmax(dim=1) == labels).float().mean(),
        }

    def of_probabilities(logits: Tensor, pixels: Tensor, _: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), compute.autocast(precision):
            said = to_float32(answers.classifier(pixels))
        divergence = functional.kl_div(
            logits.log_softmax(dim=1), said.log_softmax(dim=1), reduction="batchmean", log_target=True
        )
        return {"loss": divergence, "agreement": (logits.argmax(dim=1) == said.argmax(dim=1)).float().mean()}

    student = fresh(task)
    loss = of_labels if params.answers == "labels" else of_probabilities
    retraining = Retraining(student, images, params.recipe, loss, compute)
    init_from_data(student, lambda: next(iter(retraining.batches.epoch(task.seed))).pixels)
    return retrained(task, retraining)
