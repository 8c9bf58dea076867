"""Batches of one image, which some networks cannot train on: a map of one pixel has no variance over a single image."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from refine.core.errors import UserError
from refine.models.device import Compute
from refine.training.order import Sharing
from refine.training.recipe import Recipe
from refine.training.training_set import TrainingSet


def refuse_lone_image(network: nn.Module, images: TrainingSet, recipe: Recipe, compute: Compute) -> None:
    """Refuses a training in which batch normalization would get a single value of a channel.

    Args:
        network: what will be trained, from float [N, 3, side, side].
        images: that it is trained on.
        recipe: how.
        compute: GPUs normalize the parts of a batch together, processors each its own.

    Raises:
        UserError: a batch holds a single image, and the network has a map of one pixel for images of this size.
    """
    count, world = sum(images.sizes), compute.world
    parts = [Sharing(count, recipe.batch_size, recipe.drop_last, rank, world).sizes for rank in range(world)]
    if compute.device.type == "cuda":
        parts = [[sum(step) for step in zip(*parts, strict=True)]]
    if any(1 in sizes for sizes in parts) and not _takes_one(network, images.side):
        raise UserError(
            f"{recipe.place}: a process would normalize a single one of the {count} images, too little at "
            f"{images.side} pixels; {_remedy(parts)}"
        )


def _takes_one(network: nn.Module, side: int) -> bool:
    """Whether the network trains on a single image of this side; nothing is computed, and it stays as it is."""
    try:
        deepcopy(network).to("meta").train()(torch.empty(1, 3, side, side, device="meta"))
    except ValueError:  # of torch's batch normalization, and of nothing else
        return False
    return True


def _remedy(parts: list[list[int]]) -> str:
    """What helps: dropping the last batch only where it is smaller than those before it."""
    if any(1 in sizes[:-1] for sizes in parts):
        return "raise batch_size"
    if all(len(sizes) > 1 for sizes in parts):
        return "raise batch_size or set drop_last"
    return "train on more images"
