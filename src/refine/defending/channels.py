"""The channels of a network that can be removed: a convolution, and the batch normalization after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, symbolic_trace
from torch.nn.modules.batchnorm import _BatchNorm

from refine.core.errors import UserError

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


def pairs(network: nn.Module, asked_by: str) -> list[Pair]:
    """All pairs of a network, in the order of its graph.

    Args:
        network: of a classifier.
        asked_by: what needs them, for the error message.

    Raises:
        UserError: there is none.
    """
    modules = dict(network.named_modules())
    found = []
    for node in _graph(network, asked_by).nodes:
        normalization = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(normalization, _BatchNorm) or normalization.running_var is None:
            continue
        before = _before(node, modules)
        convolution = modules[str(before.target)] if before else None
        if before and isinstance(convolution, nn.Conv2d):
            found.append(Pair(str(before.target), convolution, normalization))
    if not found:
        raise UserError(f"{asked_by} finds no convolution with a batch normalization after it; choose another defense")
    return found


def _graph(network: nn.Module, asked_by: str) -> Graph:
    try:
        return symbolic_trace(network).graph
    except Exception as error:  # noqa: BLE001 (tracing runs the network's own code on stand-ins for tensors)
        raise UserError(f"{asked_by} cannot follow what this architecture computes ({error}); choose another") from None


def _before(node: Node, modules: dict[str, nn.Module]) -> Node | None:
    """The module whose output a module alone takes, right away or after pooling."""
    while True:
        (node,) = node.all_input_nodes
        if node.op != "call_module" or len(node.users) > 1:
            return None
        if not isinstance(modules[str(node.target)], _POOLING):
            return node


@torch.no_grad()
def remove(pair: Pair, removed: Tensor, shifts: bool = True) -> None:
    """Makes the normalized output of channels constant, whatever the input.

    Args:
        pair: changed in place.
        removed: which channels, bool [C].
        shifts: of the batch normalization too, so that the output is zero. Where it has none, it is zero in any case.
    """
    convolution, normalization = pair.convolution, pair.normalization
    cleared: list[Tensor | None] = [normalization.weight, normalization.bias if shifts else None]
    if not normalization.affine:
        cleared = [convolution.weight, convolution.bias, normalization.running_mean]
    for tensor in cleared:
        if tensor is not None:
            tensor[removed] = 0.0
