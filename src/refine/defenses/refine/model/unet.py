"""The U-Net that transforms inputs before the frozen classifier sees them (REFINE, ICLR 2025).

Four levels down and four up, bilinear upsampling with aligned corners, a 1x1 output convolution
without activation: the clamp belongs to the caller, because its range depends on the input space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 4


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution with bias, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, middle: int | None = None) -> None:
        middle = outputs if middle is None else middle
        super().__init__(
            nn.Conv2d(inputs, middle, 3, padding=1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Maps images to images of the same size.

    Args:
        first_channels: channels of the first level; 64 for CIFAR-10 and 32 for 224 pixels in the paper.

    Attributes:
        inner_channels: of the innermost maps.

    Shapes:
        float [N, 3, H, W] to float [N, 3, H, W], H and W at least 16, unbounded values.
    """

    def __init__(self, first_channels: int) -> None:
        super().__init__()
        widths = [first_channels * factor for factor in (1, 2, 4, 8, 8)]
        self.inlet = DoubleConv(3, widths[0])
        self.down = nn.ModuleList(DoubleConv(widths[i], widths[i + 1]) for i in range(LEVELS))
        self.up = nn.ModuleList()
        self.inner_channels = below = widths[LEVELS]
        for level in reversed(range(LEVELS)):
            joined = widths[level] + below
            below = widths[level] // 2 if level else widths[level]
            self.up.append(DoubleConv(joined, below, middle=joined // 2))
        self.outlet = nn.Conv2d(widths[0], 3, 1)
        self._encoder_frozen = False

    def freeze_encoder(self) -> None:
        """From now on the encoder stays as it is, its batch statistics included; the decoder goes on learning."""
        for part in (self.inlet, self.down):
            part.requires_grad_(False)
        self._encoder_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; a frozen encoder stays in eval mode whatever happens."""
        super().train(mode)
        if self._encoder_frozen:
            for part in (self.inlet, self.down):
                part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        skips = encoded(self.inlet, self.down, images)
        inner = skips.pop()
        for up in self.up:
            skip = skips.pop()
            inner = up(torch.cat([skip, _grow(inner, skip)], dim=1))
        out: Tensor = self.outlet(inner)
        return out


def encoded(inlet: nn.Module, down: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """What a U-Net's encoder makes of images float [N, 3, H, W]: the maps of all levels, the innermost last."""
    maps = [inlet(images)]
    for level in down:
        maps.append(level(functional.max_pool2d(maps[-1], 2)))
    return maps


def _grow(inner: Tensor, skip: Tensor) -> Tensor:
    """Doubles the side of `inner`, then pads with zeros to that of `skip` (odd sides lose a pixel on the way down)."""
    grown = functional.interpolate(inner, scale_factor=2, mode="bilinear", align_corners=True)
    rows, columns = skip.shape[-2] - grown.shape[-2], skip.shape[-1] - grown.shape[-1]
    if rows == 0 and columns == 0:
        return grown
    return functional.pad(grown, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
