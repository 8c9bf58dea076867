"""Inverting triggers and learning to purify images of them, in turn."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.defending.decoupling.inversion import Inversion
from refine.defending.decoupling.terms import noisy
from refine.defending.decoupling.unet import UNet
from refine.defending.finetuning import accuracy, labeled_images
from refine.defending.retraining import trainable
from refine.defending.train import Task
from refine.defenses.bti_dbf.defense import NAME, Params
from refine.models import classifier as classifiers
from refine.models.card import WEIGHTS
from refine.models.device import to_float32
from refine.shards.reading.tensors import save_tensors
from refine.training.loop import write_history

_BOUND = 0.05
_FAR = 100.0


def train(task: Task) -> str:
    """See `defending.train.Task`.

    Raises:
        UserError: the network has no map to look at.
    """
    params: Params = task.settings
    inversion = Inversion(task, NAME, labeled_images(task), classifiers.freeze(trainable(task)))
    inversion.pretrain()
    purifier = deepcopy(inversion.generator)

    def terms(images: Tensor, labels: Tensor, generator: Generator) -> dict[str, Tensor]:
        return purifier_terms(inversion, purifier, images, labels, generator)

    rows = inversion.alternate(
        lambda images: to_float32(purifier(images)),
        lambda number: inversion.trained(purifier, terms, params.recipe, "purifier", number),
    )
    write_history(task.folder / "history.csv", rows)
    return save_tensors(task.folder / WEIGHTS, purifier.state_dict())


def purifier_terms(
    inversion: Inversion, purifier: UNet, images: Tensor, labels: Tensor, generator: Generator
) -> dict[str, Tensor]:
    """The purifier's loss of normalized images float [B, 3, H, W], some of which the generator changes first."""
    with torch.no_grad():
        before = inversion.inside.answer(images).map
    made = to_float32(purifier(noisy(inversion.mixed(images), inversion.params.noise, generator)))
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
