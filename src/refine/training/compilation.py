"""torch's compiler, which needs another one on the machine."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from refine.core.errors import UserError
from refine.training.recipe import Recipe


def compiled(module: nn.Module, recipe: Recipe) -> nn.Module:
    """The module compiled at its first use where the recipe says so, or as it is.

    Raises:
        UserError: it cannot be done here.
    """
    if not recipe.compile:
        return module
    try:
        torch.compile(lambda x: (x * 2).sin())(torch.ones(8))
    except Exception as error:  # noqa: BLE001 (the compiler's own classes differ from version to version)
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{recipe.place}.compile is on, but torch cannot compile here ({reason}); "
            "install a C++ compiler or set it to false"
        ) from None
    return cast(nn.Module, torch.compile(module))
