"""Pruning by channel Lipschitzness: nothing is trained, and no image is read."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refine.core.files import write_csv
from refine.defending.channels import Pair, pairs, remove
from refine.defending.train import Task
from refine.defenses.clp.defense import NAME, Params
from refine.models.card import WEIGHTS
from refine.shards.reading.tensors import save_tensors

PRUNED = "pruned.csv"
"""The channels that were removed, one per line; beside the weights."""


@dataclass(frozen=True)
class Pruned:
    """A channel that was removed: its layer, its number, its bound, and the bound from which channels are removed."""

    layer: str
    channel: int
    bound: float
    threshold: float


@torch.no_grad()
def bounds(pair: Pair) -> Tensor:
    """L_c of each channel, float64 [C]."""
    normalization, weight = pair.normalization, pair.convolution.weight.double()
    variances = normalization.get_buffer("running_var").double()
    scale = 1 / (variances + normalization.eps).sqrt()
    if normalization.affine:
        scale = scale * normalization.weight.double().abs()
    found: Tensor = torch.linalg.matrix_norm(weight.flatten(2) * scale.view(-1, 1, 1), ord=2)
    return found


@torch.no_grad()
def prune(network: nn.Module, u: float) -> list[Pruned]:
    """Removes channels of a network, in place, by bounds that are all computed before.

    Raises:
        UserError: see `pairs`.
    """
    pruned = []
    for pair, bound in [(pair, bounds(pair)) for pair in pairs(network, NAME)]:
        threshold = bound.mean() + u * bound.std()
        removed = bound > threshold
        remove(pair, removed)
        channels = removed.nonzero().flatten().tolist()
        pruned += [Pruned(pair.name, channel, float(bound[channel]), float(threshold)) for channel in channels]
    return pruned


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    network = deepcopy(task.classifier.network)
    rows = [(each.layer, each.channel, each.bound, each.threshold) for each in prune(network, params.u)]
    write_csv(task.folder / PRUNED, ("layer", "channel", "bound", "threshold"), rows)
    return save_tensors(task.folder / WEIGHTS, network.state_dict())
