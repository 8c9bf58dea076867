"""Replacing a share of a network's weights by new ones, the larger the deeper: deep layers hold the backdoor, and are
learned again most easily (Pang et al., CVPR 2023, "Backdoor Cleansing with Unlabeled Data").

Shares go by depth and not by the names of one architecture's layers. Groups of layers are blocks by the first two parts
of their names, in their order; a group of more than half of all layers is taken apart by further parts. Layers that an
architecture computes instead of learning (the first one of airbench) are not replaced, and batch normalization stays as
it was given.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

_HEAD = "head"
_BODY = "body."
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
_PARTS, _MOST_PARTS = 2, 6
"""Of a layer's name, by which it is grouped."""


def probabilities(network: nn.Module, by_depth: list[float], head: float) -> dict[str, float]:
    """With which probability entries of each parameter are replaced, by the parameters' names.

    Args:
        network: freshly built, as its parameters still tell which of them are learned.
        by_depth: probabilities of groups of layers from the input on, without the head. Other numbers of groups than
            there are values take them by their relative depth, interpolated; a single one takes the last value.
        head: probability of the last linear layer.

    Returns:
        Those of learned weights and biases of convolutions and linear layers; all others are not replaced.
    """
    parameters = {
        f"{name}.{own}": name
        for name, module in network.named_modules()
        if isinstance(module, _LAYERS)
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }
    of = _groups(list(dict.fromkeys(parameters.values())))
    layers = {name: of[layer] for name, layer in parameters.items()}
    groups = list(dict.fromkeys(group for group in layers.values() if group != _HEAD))
    shares = {group: _at_depth(by_depth, number, len(groups)) for number, group in enumerate(groups)}
    shares[_HEAD] = head
    return {name: shares[group] for name, group in layers.items()}


def _groups(layers: list[str]) -> dict[str, str]:
    """The group of each layer, a beginning of its name; `body`, see `models.apart`, is no part of that."""
    skipped = {layer: int(layer.startswith(_BODY)) for layer in layers}
    group = {layer: _beginning(layer, skipped[layer] + _PARTS) for layer in layers}
    for parts in range(_PARTS + 1, _MOST_PARTS):
        sizes = Counter(group.values())
        for layer, own in group.items():
            if sizes[own] > len(layers) / 2:
                group[layer] = _beginning(layer, skipped[layer] + parts)
    return group


def _beginning(name: str, parts: int) -> str:
    return ".".join(name.split(".")[:parts])


def _at_depth(values: list[float], number: int, count: int) -> float:
    """The value of one of so many groups, numbered from 0."""
    last = len(values) - 1
    place = number * last / (count - 1) if count > 1 else last
    below = int(place)
    return values[below] + (place - below) * (values[min(below + 1, last)] - values[below])


@torch.no_grad()
def replace(network: nn.Module, new: nn.Module, shares: dict[str, float]) -> None:
    """Replaces each entry of the named parameters, with its probability, by that of a new network of the same kind.

    What is replaced is drawn from torch's global random state. It goes on behind the draws of the new network: with the
    same ones, entries would be replaced where the new ones are small.
    """
    drawn = dict(new.named_parameters())
    for name, parameter in network.named_parameters():
        if name in shares:
            chosen = torch.rand(parameter.shape) < shares[name]
            parameter.copy_(torch.where(chosen.to(parameter.device), drawn[name], parameter))
