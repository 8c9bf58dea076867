"""Fine-tuning a teacher, and then the classifier under its attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from refine.core.errors import UserError
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.maps import Watched, last_of_each_resolution
from refine.defending.retraining import Loss, Retraining, retrained, trainable
from refine.defending.train import Task
from refine.defenses.nad.defense import NAME, Params
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.models.device import to_float32
from refine.training.batches import Batch
from refine.training.loop import Run, write_history


def attention(maps: Tensor, power: float) -> Tensor:
    """Where maps float [B, C, H, W] are active: float32 [B, H * W], each row of length 1."""
    return functional.normalize(to_float32(maps).abs().pow(power).sum(dim=1).flatten(1), dim=1)


def loss_of(
    teacher: Callable[[Tensor], object], watched: tuple[Watched, Watched], weights: tuple[float, ...], power: float
) -> Loss:
    """The cross-entropy and, weighted, how far the attention is from the teacher's.

    Args:
        teacher: frozen; asked for its maps alone.
        watched: of the student, which has just seen the pixels, and of the teacher.
        weights: of each map.
        power: of the attention.
    """
    student_maps, teacher_maps = watched

    def loss(logits: Tensor, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        own = [attention(maps, power) for maps in student_maps.maps]
        with torch.no_grad():
            teacher(pixels)
            wanted = [attention(maps, power) for maps in teacher_maps.maps]
        apart = [
            weight * functional.mse_loss(one, other) for weight, one, other in zip(weights, own, wanted, strict=True)
        ]
        plain = cross_entropy(logits, pixels, batch)
        attending = torch.stack(apart).sum()
        return {
            **plain,
            "loss": plain["loss"] + attending,
            "cross_entropy": plain["loss"],
            "attention": attending,
        }

    return loss


def places(task: Task, weights: tuple[float, ...]) -> list[str]:
    """The modules whose maps are compared.

    Raises:
        UserError: the network has fewer resolutions than there are weights.
    """
    found = last_of_each_resolution(task.classifier.network, task.card.input_side)
    if len(found) < len(weights):
        raise UserError(
            f"defense_settings.{NAME}.weights names {len(weights)} maps, and the network has {len(found)} of different "
            "resolutions; name fewer"
        )
    return found[-len(weights) :]


def train(task: Task) -> str:
    """See `defending.train.Task`.

    Raises:
        UserError: see `places`.
    """
    params: Params = task.settings
    names = places(task, params.weights)
    teacher = _teacher(task, params)
    student = trainable(task)
    watched = Watched(student.network, names), Watched(teacher.network, names)
    precision = task.compute.precision(params.recipe.precision)

    def asked(pixels: Tensor) -> None:
        with task.compute.autocast(precision):  # as the student is, else equal networks would differ
            teacher(pixels)

    loss = loss_of(asked, watched, params.weights, params.power)
    of = student, labeled_images(task), params.recipe, loss, task.compute, params.batch_statistics
    return retrained(task, Retraining(*of))


def _teacher(task: Task, params: Params) -> Classifier:
    teacher = trainable(task)
    of = teacher, labeled_images(task), params.teacher, cross_entropy, task.compute, params.batch_statistics
    kept = task.checkpoints.part("teacher") if task.checkpoints else None
    name = f"train-defense@{NAME}-teacher"
    history = Run(Retraining(*of), params.teacher, name, task.seed, task.compute, kept).train()
    write_history(task.folder / "teacher_history.csv", history)
    return classifiers.freeze(teacher)
