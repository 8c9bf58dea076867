"""Networks of timm, freshly initialized; no weights are ever downloaded. The package is an extra, `refine[timm]`."""

from __future__ import annotations

from types import ModuleType

from torch import nn

from refine.architectures.timm.params import Params
from refine.core.errors import UserError
from refine.core.params import unknown
from refine.models.apart import Split, Whole, apart


def _library() -> ModuleType:
    """The package timm.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise UserError("networks of timm need the package timm; install it with `pip install timm`") from None
    module: ModuleType = timm
    return module


def known(params: Params) -> ModuleType:
    """The package timm, which has this network.

    Raises:
        UserError: it is not installed, or has no such network.
    """
    timm = _library()
    if not timm.is_model(params.model):
        raise UserError(f"timm:{params.model}: {unknown(params.model, timm.list_models())}")
    return timm


def build(params: Params, num_classes: int, side: int) -> Split | Whole:
    """A freshly initialized network; see `models.architecture`.

    Raises:
        UserError: timm is not installed, there is no such network, or it does not take images of this side.
    """
    timm, name = known(params), f"timm:{params.model}"
    try:
        network = _made(timm, params.model, num_classes, side)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be built for images of {side} pixels ({error}); choose another side") from None
    return apart(network, num_classes, side, name)


def _made(timm: ModuleType, model: str, num_classes: int, side: int) -> nn.Module:
    further = {"img_size": side} if timm.get_pretrained_cfg(model).fixed_input_size else {}
    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=num_classes, **further)
    return network
