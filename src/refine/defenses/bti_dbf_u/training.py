"""Inverting triggers and unlearning them, in turn."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.defending.decoupling.inside import Inside
from refine.defending.decoupling.inversion import Inversion
from refine.defending.finetuning import accuracy, labeled_images
from refine.defending.retraining import trainable
from refine.defending.train import Task
from refine.defenses.bti_dbf_u.defense import NAME, Params
from refine.models import classifier as classifiers
from refine.models.card import WEIGHTS
from refine.shards.reading.tensors import save_tensors
from refine.training.loop import Row, write_history


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    classifier = classifiers.freeze(trainable(task))
    inversion = Inversion(task, NAME, labeled_images(task), classifier)
    given = Inside(
        classifiers.freeze(trainable(task)), task.card.input_side, task.compute, inversion.precision
    )  # a copy, which stays
    inversion.pretrain()
    rows: list[Row] = []
    for number in range(params.rounds):
        inversion.invert(number, lambda images: images, None)
        rows += [{"round": number, **row} for row in _unlearn(task, inversion, given, number)]
        classifier.eval()
    write_history(task.folder / "history.csv", rows)
    return save_tensors(task.folder / WEIGHTS, classifier.network.state_dict())


def _unlearn(task: Task, inversion: Inversion, given: Inside, number: int) -> list[Row]:
    params: Params = task.settings

    def terms(images: Tensor, labels: Tensor, generator: Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            before = given.answer(images).map
        after = inversion.inside.answer(inversion.mixed(images, generator))
        entropy, features = functional.cross_entropy(after.logits, labels), functional.mse_loss(after.map, before)
        return {
            "loss": entropy + features,
            "cross_entropy": entropy,
            "features": features,
            "accuracy": accuracy(after.logits, labels),
        }

    network = inversion.classifier.network
    return inversion.trained(network, terms, params.recipe, "unlearning", number, params.batch_statistics)
