"""Whether a network of anybody's gives numbers: finite weights may still overflow, or divide by nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refine.core.errors import UserError

_SIDE = 16


def probe() -> Tensor:
    """A black, a gray, a white and a striped image, float [4, 3, 16, 16]: the least side that all networks take."""
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, _SIDE, _SIDE)
    stripes = (torch.arange(_SIDE) // 2 % 2).float().expand(1, 3, _SIDE, _SIDE)
    return torch.cat([flat, stripes])


@torch.inference_mode()
def refuse_unusable(network: nn.Module, inputs: Tensor, path: Path) -> None:
    """Runs a network once and looks at what each of its layers gives.

    Args:
        network: in eval mode.
        inputs: as it takes them.
        path: of its tensors, for the message.

    Raises:
        UserError: a layer gives values that are not finite; the sentence names the first, by its tensors.
    """
    blamed: list[str] = []
    last = ""

    def look(name: str, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal last
        last = name or last  # a layer without tensors hands on what the one before it made
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
        raise UserError(f"{path} answers with values that are not finite, from {blamed[0]} on; train the model again")


def _own_tensor(name: str, module: nn.Module) -> str:
    """The first tensor of a layer's state; nothing where it has none."""
    return next((f"{name}.{tensor}" for tensor in module.state_dict()), "")
