"""The U-Net of BTI-DBF (Xu et al., ICLR 2024), which inverts triggers and purifies images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.01
_MOST_LEVELS = 4
_LEAST_INNER = 2
"""Side of the innermost maps: instance normalization of a single pixel is not defined."""


class _DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, instance normalization, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for own in (inputs, outputs):
            layers += [nn.Conv2d(own, outputs, 3, padding=1), nn.InstanceNorm2d(outputs, affine=True)]
            layers.append(nn.LeakyReLU(_SLOPE))
        super().__init__(*layers)


class UNet(nn.Module):
    """Maps normalized images to images of the same size, without a bound.

    Args:
        first_channels: of the first level; each further one has twice as many.
        side: of the images, 4 or more. Images of less than 32 pixels get fewer than the published four levels.

    Shapes:
        float [N, 3, side, side] to the same.
    """

    def __init__(self, first_channels: int, side: int) -> None:
        super().__init__()
        levels = min(_MOST_LEVELS, (side // _LEAST_INNER).bit_length() - 1)
        widths = [first_channels << level for level in range(levels + 1)]
        self.inlet = _DoubleConv(3, widths[0])
        self.down = nn.ModuleList(_DoubleConv(*widths[level : level + 2]) for level in range(levels))
        self.grow, self.join = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(levels)):
            below, own = widths[level + 1], widths[level]
            grown = nn.ConvTranspose2d(below, below, 3, stride=2, padding=1, output_padding=1)
            self.grow.append(nn.Sequential(grown, nn.LeakyReLU(_SLOPE)))
            self.join.append(_DoubleConv(below + own, own))
        self.outlet = nn.Conv2d(widths[0], 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = [self.inlet(images)]
        for level in self.down:
            maps.append(level(functional.max_pool2d(maps[-1], 2)))
        inner = maps.pop()
        for grow, join in zip(self.grow, self.join, strict=True):
            skip = maps.pop()
            grown = grow(inner)
            rows, columns = skip.shape[-2] - grown.shape[-2], skip.shape[-1] - grown.shape[-1]
            inner = join(torch.cat([functional.pad(grown, (0, columns, 0, rows)), skip], dim=1))
        out: Tensor = self.outlet(inner)
        return out
