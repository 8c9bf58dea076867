"""The maps inside a network: its last one of each resolution."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


def last_of_each_resolution(network: nn.Module, side: int) -> list[str]:
    """Names of the modules whose output is the last map of its resolution, the finest first; not those of one pixel.

    Args:
        network: from float [N, 3, side, side].
        side: of the images.
    """
    made = deepcopy(network).to("meta").eval()
    last: dict[int, str] = {}

    def note(name: str) -> None:
        def look(_: nn.Module, __: object, out: object) -> None:
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[-1] > 1:
                last[out.shape[-1]] = name

        made.get_submodule(name).register_forward_hook(look)

    for name, _ in made.named_modules():
        if name:
            note(name)
    made(torch.empty(2, 3, side, side, device="meta"))
    return [last[size] for size in sorted(last, reverse=True)]


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

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def look(_: nn.Module, __: object, out: Tensor) -> None:
            self._found[name] = out

        return look

    @property
    def maps(self) -> list[Tensor]:
        return [self._found[name] for name in self._names]
