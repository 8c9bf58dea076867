"""Checks that an untrusted network computes finite values: even finite weights may overflow or divide by zero."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.models.apart import LEAST_SIDE


def probe(side: int = LEAST_SIDE) -> Tensor:
    """A black, a gray, a white and a striped image, float [4, 3, side, side]."""
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, side, side)
    stripes = (torch.arange(side) // 2 % 2).float().expand(1, 3, side, side)
    return torch.cat([flat, stripes])


@torch.inference_mode()
def refuse_unusable(network: nn.Module, inputs: Tensor, path: Path) -> None:
    """Runs a network once and checks the output of each layer.

    Args:
        network: in eval mode.
        inputs: of the network.
        path: of its weights, for the error message.

    Raises:
        UserError: the output of a layer is not finite; the message names the first such layer by one of its tensors.
    """
    blamed: list[str] = []
    last = ""

    def look(name: str, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal last
        last = name or last  # layers without tensors are reported as the one before
        if not blamed and isinstance(output, Tensor) and not torch.isfinite(output).all():
            blamed.append(last)

    layers = [(name, module) for name, module in network.named_modules() if not [*module.children()]]
    hooks = [module.register_forward_hook(partial(look, _own_tensor(name, module))) for name, module in layers]
    try:
        look("", network, (), network(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if blamed:
        raise UserError(f"{path} computes values that are not finite, from {blamed[0]} on; train the model again")


def _own_tensor(name: str, module: nn.Module) -> str:
    """Name of the first tensor in the state of a layer; empty if it has none."""
    return next((f"{name}.{tensor}" for tensor in module.state_dict()), "")
