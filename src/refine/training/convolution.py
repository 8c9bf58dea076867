"""3x3 convolutions whose weights get their gradient from matrix products, for training on processors.

Where it was measured (AVX2), torch gives the gradient of a convolution's weights at half to two thirds of the rate at
which it convolves (`python -m benchmarks.convolution` tells both). With many channels it is quicker to write the nine
shifts of the maps beside each other and to multiply once; with few, such a product is too thin to pay for the writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

LEAST_INPUTS, LEAST_OUTPUTS = 32, 64
"""Channels that a convolution takes and gives, from which on the product is faster."""
LEAST_WORK = 3e7
"""Multiplications at each of the nine places, of a whole batch, from which on there is something to win."""
_AT_ONCE = 2**20
"""Values of shifted maps that are written at a time: they should stay in the processor's cache."""


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, weight)
        return functional.conv2d(maps, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        maps, weight = ctx.saved_tensors
        of_maps, of_weight, of_bias = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _maps_gradient(maps, weight, gradient) if of_maps else None,
            weight_gradient(maps, gradient) if of_weight else None,
            gradient.sum(dim=(0, 2, 3)) if of_bias else None,
        )


def _maps_gradient(maps: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """torch's own; `torch.nn.grad.conv2d_input` would write a copy of the maps first."""
    step, border, dilation, wanted = [1, 1], [1, 1], [1, 1], [True, False, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, step, border, dilation, False, [0, 0], 1, wanted
    )[0]
    return found


def weight_gradient(maps: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weights of a 3x3 convolution with a border of one zero and stride 1.

    Args:
        maps: what it took, float [N, C, H, W].
        gradient: of what it gave, float [N, K, H, W].

    Returns:
        float [K, C, 3, 3], in channels-last memory order.
    """
    channels, height, width = maps.shape[1:]
    rows = min(height, max(1, _AT_ONCE // (9 * channels * width)))
    images = max(1, _AT_ONCE // (9 * channels * width * rows))
    bordered = functional.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    shifts = bordered.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3)
    total = maps.new_zeros(9 * channels, gradient.shape[1])  # this way round the product is faster
    both = shifts, gradient.permute(0, 2, 3, 1)
    parts = ((part for some in torch.split(each, images) for part in torch.split(some, rows, dim=1)) for each in both)
    for shifted, given in zip(*parts, strict=True):
        total.addmm_(shifted.reshape(-1, 9 * channels).T, given.flatten(0, 2))
    weight = total.view(3, 3, channels, -1).permute(3, 2, 0, 1)
    return weight.contiguous(memory_format=torch.channels_last)


class Convolution(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps its maps' size; in float32 on a processor it learns the quick way."""

    @classmethod
    def of(cls, other: nn.Conv2d) -> Self:
        """With the same parameters, not copies of them."""
        made = cls(other.in_channels, other.out_channels, 3, padding=1, bias=other.bias is not None, device="meta")
        made.weight, made.bias = other.weight, other.bias
        return made.train(other.training)

    def forward(self, maps: Tensor) -> Tensor:
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        if not learns or maps.numel() * self.out_channels < LEAST_WORK or not _in_float32_on_a_processor(maps):
            return super().forward(maps)
        out: Tensor = _Convolve.apply(maps, self.weight, self.bias)
        return out


@contextmanager
def quickened(network: nn.Module) -> Iterator[None]:
    """Replaces a network's convolutions, as long as the block lasts, where that makes training on a processor faster.

    Parameters and their names stay the same.
    """
    replaced = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Conv2d and _fits(child)
    ]
    try:
        for parent, name, child in replaced:
            setattr(parent, name, Convolution.of(child))
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


def _in_float32_on_a_processor(maps: Tensor) -> bool:
    return maps.dtype == torch.float32 and maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _fits(layer: nn.Conv2d) -> bool:
    settings = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
    alike = settings == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return alike and layer.in_channels >= LEAST_INPUTS and layer.out_channels >= LEAST_OUTPUTS
