"""Pruning by channel Lipschitzness: nothing is trained, and no image is read."""

from __future__ import annotations

import csv
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

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
    _write(task.folder / PRUNED, prune(network, params.u))
    return save_tensors(task.folder / WEIGHTS, network.state_dict())


def _write(path: Path, pruned: list[Pruned]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", "channel", "bound", "threshold"])
        writer.writerows([each.layer, each.channel, f"{each.bound:.6g}", f"{each.threshold:.6g}"] for each in pruned)
