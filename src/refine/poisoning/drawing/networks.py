"""Networks that draw a trigger for each image, of the shape published with the input-aware attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_DEPTH = 3
_MOMENTUM = 0.05
_STEEP = 20


def _block(inputs: int, outputs: int, rectified: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs, momentum=_MOMENTUM)]
    return nn.Sequential(*layers, *([nn.ReLU()] if rectified else []))


class Drawer(nn.Module):
    """An encoder-decoder without skip connections.

    Args:
        width: channels of the first layers; they double twice towards the middle.
        channels: of the result.

    Shapes:
        pixels float [N, 3, H, W] in [0, 1] to float [N, channels, H, W] in [0, 1].
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(_DEPTH)]
        self.down = nn.ModuleList(
            nn.Sequential(_block(inputs, outputs), _block(outputs, outputs))
            for inputs, outputs in zip([3, *widths], widths, strict=False)
        )
        self.middle = _block(widths[-1], widths[-1])
        narrower = [*widths[-2::-1], channels]
        self.up = nn.ModuleList(
            nn.Sequential(_block(inputs, inputs), _block(inputs, outputs, rectified=outputs != channels))
            for inputs, outputs in zip(widths[::-1], narrower, strict=True)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        sizes, maps = [], pixels
        for part in self.down:
            sizes.append(list(maps.shape[-2:]))
            maps = functional.max_pool2d(part(maps), 2)
        maps = self.middle(maps)
        for part, size in zip(self.up, reversed(sizes), strict=True):
            maps = part(functional.interpolate(maps, size=size, mode="bilinear", align_corners=False))
        return torch.sigmoid(2 * maps)


class Drawers(nn.Module):
    """What draws the triggers: where they are seen, and what is seen there.

    Args:
        width: channels of the first layers of both.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mask = Drawer(width, 1)
        self.pattern = Drawer(width, 3)

    def shown(self, pixels: Tensor) -> Tensor:
        """m, mostly near 0 or 1, float [N, 1, H, W], of pixels float [N, 3, H, W]."""
        return torch.sigmoid(2 * _STEEP * (self.mask(pixels) - 0.5))

    def forward(self, pixels: Tensor, of: Tensor) -> Tensor:
        """Images with the triggers of images.

        Args:
            pixels: float [N, 3, H, W] in [0, 1].
            of: whose triggers, of the same shape.
        """
        return painted(pixels, self.pattern(of), self.shown(of))


def painted(pixels: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    """x + m (p - x), of the shape of the pixels."""
    return pixels + mask * (pattern - pixels)
