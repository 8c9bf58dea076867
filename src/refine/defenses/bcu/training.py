"""Training of BCU: a student with the given weights, some of them new, learns the given classifier's answers."""

from __future__ import annotations

import torch
from torch import Tensor

from refine.defending.replacement import probabilities, replace
from refine.defending.retraining import Retraining, fresh, retrained, trainable
from refine.defending.train import Task
from refine.defenses.bcu.defense import Params
from refine.models import classifier as classifiers
from refine.models.device import to_float32
from refine.training.batches import Batch


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    compute, recipe = task.compute, params.recipe
    images = task.open_images()
    student, new = trainable(task), fresh(task)
    replace(student.network, new.network, probabilities(new.network, params.replaced, params.replaced_in_head))
    teacher = classifiers.folded(task.classifier.to(compute.device))
    precision = compute.precision(recipe.precision)

    def loss(logits: Tensor, pixels: Tensor, _: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), compute.autocast(precision):
            said = to_float32(teacher(pixels))
        heat = temperature(retraining.epoch, retraining.recipe.epochs, params.warming)
        pair = (logits, said) if params.divergence == "student_teacher" else (said, logits)
        return {
            "loss": divergence(*pair, heat),
            "agreement": (logits.argmax(dim=1) == said.argmax(dim=1)).float().mean(),
        }

    retraining = Retraining(student, images, recipe, loss, compute)
    return retrained(task, retraining)


def temperature(epoch: int, epochs: int, warming: float) -> float:
    """T in an epoch, counted from 1: it rises from 1 to 1 + `warming` in the last one."""
    return 1 + warming * epoch / epochs


def divergence(of: Tensor, reference: Tensor, heat: float) -> Tensor:
    """KL(softmax(of / T) || softmax(reference / T)), the mean over images, without a factor T^2.

    Args:
        of: logits float [N, K].
        reference: logits float [N, K].
        heat: T.
    """
    first, second = ((logits / heat).log_softmax(dim=1) for logits in (of, reference))
    return (first.exp() * (first - second)).sum(dim=1).mean()
