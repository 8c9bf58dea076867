"""The maps inside a network: its last one of each resolution, and its last one of all."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from refine.core.errors import UserError


class _Call(NamedTuple):
    """A module that computed: its name, the side of the square map that it put out or None, and whether it has weights
    of its own."""

    name: str
    side: int | None
    learns: bool


def _calls(network: nn.Module, side: int) -> list[_Call]:
    """All modules within a network, in the order in which they end."""
    made = deepcopy(network).to("meta").eval()
    found: list[_Call] = []

    def noted(name: str, module: nn.Module) -> Callable[..., None]:
        learns = any(True for _ in module.parameters(recurse=False))

        def look(_: nn.Module, __: object, out: object) -> None:
            is_map = isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] == out.shape[3]
            found.append(_Call(name, out.shape[-1] if is_map and isinstance(out, Tensor) else None, learns))

        return look

    for name, module in made.named_modules():
        if name:
            module.register_forward_hook(noted(name, module))
    made(torch.empty(2, 3, side, side, device="meta"))
    return found


def last_of_each_resolution(network: nn.Module, side: int) -> list[str]:
    """Names of the modules whose output is the last map of its resolution, the finest first; not those of one pixel.

    Args:
        network: from float [N, 3, side, side].
        side: of the images.
    """
    last = {call.side: call.name for call in _calls(network, side) if call.side is not None and call.side > 1}
    return [last[size] for size in sorted(last, reverse=True)]


def last_of_all(network: nn.Module, side: int, asked_by: str) -> str:
    """Name of the module whose output is the last map, before pooling makes it one pixel if that can be told.

    Args:
        network: from float [N, 3, side, side].
        side: of the images.
        asked_by: what needs it, for the error message.

    Raises:
        UserError: there is no map that only the last layer with weights follows.
    """
    calls = _calls(network, side)
    for least in (2, 1):
        places = [number for number, call in enumerate(calls) if call.side is not None and call.side >= least]
        if places and sum(call.learns for call in calls[places[-1] + 1 :]) <= 1:
            return calls[places[-1]].name
    raise UserError(f"{asked_by} needs a network whose last layer takes the features of a map; choose another defense")


class Watched:
    """What modules of a network put out, whenever it computes.

    Args:
        network: it gets hooks, which stay.
        names: of the modules.

    Attributes:
        maps: the last output of each module, in the order of the names.
    """

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        self._found: dict[str, Tensor] = {}
        self._names = names
        for name in names:
            network.get_submodule(name).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., None]:
        found = self._found

        def look(_: nn.Module, __: object, out: Tensor) -> None:
            found[name] = out

        return look

    @property
    def maps(self) -> list[Tensor]:
        return [self._found[name] for name in self._names]
