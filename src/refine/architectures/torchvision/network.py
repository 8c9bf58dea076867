"""Networks of torchvision, freshly initialized; no weights are ever downloaded."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import DenseNet, ResNet, VisionTransformer, list_models, vgg

from refine.architectures.torchvision.params import VIT_SMALL, Params
from refine.core.errors import UserError
from refine.core.params import unknown
from refine.models.apart import Split, Whole, apart

_VISION_TRANSFORMERS: dict[str, tuple[int, int, int, int, int]] = {
    "vit_b_16": (16, 12, 12, 768, 3072),
    "vit_b_32": (32, 12, 12, 768, 3072),
    "vit_l_16": (16, 24, 16, 1024, 4096),
    "vit_l_32": (32, 24, 16, 1024, 4096),
    "vit_h_14": (14, 32, 16, 1280, 5120),
    VIT_SMALL: (0, 6, 8, 512, 512),
}
"""Patch, layers, heads, width, and width inside of blocks."""
_PATCHES = 8
"""Along a side, of a vision transformer for small images."""
_AUXILIARY = ("googlenet", "inception_v3")
"""Networks with further outputs in training, which are left out: they change nothing in use."""
_VGGS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


class _NumbersOnCpu(TorchFunctionMode):
    """Computes widths of layers, as RegNets do with tensors, on the CPU even where weights are made on `meta`."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        on_cpu = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **{**on_cpu, **(kwargs or {})})


def models() -> list[str]:
    """Names of the networks that classify images, sorted."""
    return sorted([*list_models(module=torchvision.models), VIT_SMALL])


def refuse_unknown(params: Params) -> None:
    """Refuses the name of a network that torchvision does not have.

    Raises:
        UserError: names the nearest one.
    """
    if params.model not in models():
        raise UserError(f"torchvision:{params.model}: {unknown(params.model, models())}")


def build(params: Params, num_classes: int, side: int) -> Split | Whole:
    """A freshly initialized network; see `models.architecture`.

    Raises:
        UserError: there is no such network, it has no small stem, or it does not take images of this side.
    """
    refuse_unknown(params)
    name = f"torchvision:{params.model}"
    try:
        network = _made(params, num_classes, side)
    except (AssertionError, ValueError) as error:
        raise UserError(f"{name} cannot be built for images of {side} pixels ({error}); choose another side") from None
    return apart(network, num_classes, side, f"{name} with a small stem" if params.small_stem else name)


def _made(params: Params, num_classes: int, side: int) -> nn.Module:
    model = params.model
    if model in _VISION_TRANSFORMERS:
        return _vision_transformer(params, num_classes, side)
    if params.small_stem and model.removesuffix("_bn") in _VGGS:
        return _small_vgg(model, num_classes)
    further: dict[str, Any] = {"aux_logits": False, "init_weights": True} if model in _AUXILIARY else {}
    if model.startswith("maxvit"):
        further["input_size"] = side, side
    with _NumbersOnCpu() if model.startswith("regnet") else nullcontext():
        network: nn.Module = torchvision.models.get_model(model, weights=None, num_classes=num_classes, **further)
    if params.small_stem:
        _make_small(network, params)
    return network


def _make_small(network: nn.Module, params: Params) -> None:
    if isinstance(network, ResNet):
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    elif isinstance(network, DenseNet):
        stem = network.features
        stem.conv0 = nn.Conv2d(3, stem.conv0.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.conv0.weight)
        stem.pool0 = nn.Identity()
    else:
        raise UserError(
            f"torchvision:{params.model} has no small stem; set small_stem to false, or choose a ResNet, VGG, DenseNet "
            "or vision transformer"
        )


def _small_vgg(model: str, num_classes: int) -> nn.Module:
    """VGG with one linear layer on the mean of its maps, which are one pixel for images of 32."""
    layers = vgg.make_layers(vgg.cfgs[_VGGS[model.removesuffix("_bn")]], batch_norm=model.endswith("_bn"))
    network = nn.Sequential()
    network.add_module("features", layers)
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(512, num_classes))
    for layer in network.modules():  # as torchvision does it
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return network


def _vision_transformer(params: Params, num_classes: int, side: int) -> nn.Module:
    patch, layers, heads, width, inner = _VISION_TRANSFORMERS[params.model]
    network: nn.Module = VisionTransformer(
        image_size=side,
        patch_size=max(1, side // _PATCHES) if params.small_stem else patch,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=inner,
        dropout=0.1 if params.model == VIT_SMALL else 0.0,
        num_classes=num_classes,
    )
    return network
