"""Pruning by channel Lipschitzness: nothing is trained, and no image is read."""

from __future__ import annotations

import csv
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, symbolic_trace
from torch.nn.modules.batchnorm import _BatchNorm

from refine.core.errors import UserError
from refine.defending.train import Task
from refine.defenses.clp.defense import NAME, Params
from refine.models.card import WEIGHTS
from refine.shards.reading.tensors import save_tensors

PRUNED = "pruned.csv"
"""The channels that were removed, one per line; beside the weights."""
_POOLING = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Pair:
    """A convolution and the batch normalization of its output, alone.

    Attributes:
        name: of the convolution in its network.
    """

    name: str
    convolution: nn.Conv2d
    normalization: _BatchNorm


@dataclass(frozen=True)
class Pruned:
    """A channel that was removed: its layer, its number, its bound, and the bound from which channels are removed."""

    layer: str
    channel: int
    bound: float
    threshold: float


def pairs(network: nn.Module) -> list[Pair]:
    """All pairs of a network, in the order of its graph.

    Raises:
        UserError: there is none.
    """
    modules = dict(network.named_modules())
    found = []
    for node in _graph(network).nodes:
        normalization = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(normalization, _BatchNorm) or normalization.running_var is None:
            continue
        before = _before(node, modules)
        convolution = modules[str(before.target)] if before else None
        if before and isinstance(convolution, nn.Conv2d):
            found.append(Pair(str(before.target), convolution, normalization))
    if not found:
        raise UserError(f"{NAME} finds no convolution with a batch normalization after it; choose another defense")
    return found


def _graph(network: nn.Module) -> Graph:
    try:
        return symbolic_trace(network).graph
    except Exception as error:  # noqa: BLE001 (tracing runs the network's own code on stand-ins for tensors)
        raise UserError(f"{NAME} cannot follow what this architecture computes ({error}); choose another") from None


def _before(node: Node, modules: dict[str, nn.Module]) -> Node | None:
    """The module whose output a module alone takes, right away or after pooling."""
    while True:
        (node,) = node.all_input_nodes
        if node.op != "call_module" or len(node.users) > 1:
            return None
        if not isinstance(modules[str(node.target)], _POOLING):
            return node


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
    for pair, bound in [(pair, bounds(pair)) for pair in pairs(network)]:
        threshold = bound.mean() + u * bound.std()
        removed = bound > threshold
        _remove(pair, removed)
        channels = removed.nonzero().flatten().tolist()
        pruned += [Pruned(pair.name, channel, float(bound[channel]), float(threshold)) for channel in channels]
    return pruned


def _remove(pair: Pair, removed: Tensor) -> None:
    """Makes the normalized output of channels zero, whatever the input."""
    convolution, normalization = pair.convolution, pair.normalization
    cleared: list[Tensor | None] = [normalization.weight, normalization.bias]
    if not normalization.affine:
        cleared = [convolution.weight, convolution.bias, normalization.running_mean]
    for tensor in cleared:
        if tensor is not None:
            tensor[removed] = 0.0


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
