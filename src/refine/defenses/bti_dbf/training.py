"""Inverting triggers and learning to purify images of them, in turn."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.core.files import write_json
from refine.defending.decoupling.inversion import Inversion
from refine.defending.decoupling.unet import UNet
from refine.defending.finetuning import accuracy, labeled_images
from refine.defending.retraining import trainable
from refine.defending.train import Task
from refine.defenses.bti_dbf.defense import NAME, Params
from refine.models import classifier as classifiers
from refine.models.card import WEIGHTS
from refine.shards.reading.tensors import save_tensors
from refine.training.loop import Row, write_history

TARGET = "target.json"
"""The class that the generator's images most often get after the first round; beside the weights."""
_BOUND = 0.05
_FAR = 100.0


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    classifier = classifiers.freeze(trainable(task))
    inversion = Inversion(task, NAME, labeled_images(task), classifier)
    inversion.pretrain()
    purifier = deepcopy(inversion.generator)
    target, rows = None, []
    for number in range(params.rounds):
        first = not number

        def purify(images: Tensor, first: bool = first) -> Tensor:
            return images if first else inversion.changed(purifier, images)

        inversion.invert(number, purify, target)
        if first:
            vote = inversion.vote()
            used = vote.margin >= params.least_margin
            target = vote.label if used else None
            write_json(task.folder / TARGET, {**asdict(vote), "used": used})
        rows += [{"round": number, **row} for row in _purify(task, inversion, purifier, number)]
    write_history(task.folder / "history.csv", rows)
    return save_tensors(task.folder / WEIGHTS, purifier.state_dict())


def _purify(task: Task, inversion: Inversion, purifier: UNet, number: int) -> list[Row]:
    def terms(images: Tensor, labels: Tensor, generator: Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            before = inversion.inside.answer(images).map
        made = inversion.changed(purifier, inversion.mixed(images, generator))
        after = inversion.inside.answer(made)
        entropy = functional.cross_entropy(after.logits, labels)
        apart, features = functional.mse_loss(made, images), functional.mse_loss(after.map, before)
        weight = torch.where(apart.detach() > _BOUND, _FAR, 1.0)
        return {
            "loss": entropy + weight * apart + features,
            "cross_entropy": entropy,
            "image": apart,
            "features": features,
            "accuracy": accuracy(after.logits, labels),
        }

    return inversion.trained(purifier, terms, task.settings.recipe, "purifier", number)
