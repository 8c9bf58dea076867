"""Inverting triggers and unlearning them, in turn."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

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
    """See `defending.train.Task`.

    Raises:
        UserError: the network has no map to look at.
    """
    params: Params = task.settings
    classifier = trainable(task)
    network = classifier.network
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    inversion = Inversion(task, NAME, labeled_images(task), classifiers.freeze(classifier))
    inversion.pretrain()

    def terms(images: Tensor, labels: Tensor, _: Generator) -> dict[str, Tensor]:
        return unlearning_terms(inversion, images, labels)

    def unlearn(number: int) -> list[Row]:
        rows = inversion.trained(network, terms, params.recipe, "unlearning", number, params.batch_statistics, learned)
        classifier.eval()
        return rows

    write_history(task.folder / "history.csv", inversion.alternate(None, unlearn))
    return save_tensors(task.folder / WEIGHTS, network.state_dict())


def unlearning_terms(inversion: Inversion, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The loss of normalized images float [B, 3, H, W], some of which the generator changes first."""
    with torch.no_grad():
        before = inversion.inside.answer(images).map
    after = inversion.inside.answer(inversion.mixed(images))
    entropy, features = functional.cross_entropy(after.logits, labels), functional.mse_loss(after.map, before)
    return {
        "loss": entropy + features,
        "cross_entropy": entropy,
        "features": features,
        "accuracy": accuracy(after.logits, labels),
    }
