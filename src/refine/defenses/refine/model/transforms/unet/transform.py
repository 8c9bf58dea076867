"""The U-Net that transforms inputs before the frozen classifier sees them (REFINE, ICLR 2025).

Four levels down and four up, bilinear upsampling with aligned corners, a 1x1 output convolution
without activation: the clamp belongs to the caller, because its range depends on the input space.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from refine.defenses.refine.model.transform import Transform
from refine.defenses.refine.model.transforms.unet.params import Params
from refine.models.classifier import Classifier, ClassifierCard

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


class UNet(Transform):
    """Maps images to images of the same size. See `Transform`.

    Args:
        first_channels: channels of the first level.

    Shapes:
        float [N, 3, H, W] to float [N, 3, H, W], H and W at least 16, unbounded values.
    """

    def __init__(self, first_channels: int) -> None:
        super().__init__()
        widths = [first_channels * factor for factor in (1, 2, 4, 8, 8)]
        self.inlet = DoubleConv(3, widths[0])
        self.down = nn.ModuleList(DoubleConv(widths[i], widths[i + 1]) for i in range(LEVELS))
        self.up = nn.ModuleList()
        self._inner = below = widths[LEVELS]
        for level in reversed(range(LEVELS)):
            joined = widths[level] + below
            below = widths[level] // 2 if level else widths[level]
            self.up.append(DoubleConv(joined, below, middle=joined // 2))
        self.outlet = nn.Conv2d(widths[0], 3, 1)

    def encoder(self) -> list[nn.Module]:
        return [self.inlet, self.down]

    def encoded(self, images: Tensor) -> Tensor:
        """The largest value of each of the innermost maps."""
        return self._levels(images)[-1].amax(dim=(2, 3))

    def new_head(self, classes: int) -> nn.Module:
        return nn.Linear(self._inner, classes)

    def begin(self, classifier: Classifier, classes: int, pixels: Callable[[], Tensor]) -> nn.Module:
        """It begins as it was built, under a new linear head."""
        return self.new_head(classes)

    def forward(self, images: Tensor) -> Tensor:
        skips = self._levels(images)
        inner = skips.pop()
        for up in self.up:
            skip = skips.pop()
            inner = up(torch.cat([skip, _grow(inner, skip)], dim=1))
        out: Tensor = self.outlet(inner)
        return out

    def _levels(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps, the innermost last."""
        maps = [self.inlet(images)]
        for level in self.down:
            maps.append(level(functional.max_pool2d(maps[-1], 2)))
        return maps


def _grow(inner: Tensor, skip: Tensor) -> Tensor:
    """Doubles the side of `inner`, then pads with zeros to that of `skip` (odd sides lose a pixel on the way down)."""
    grown = functional.interpolate(inner, scale_factor=2, mode="bilinear", align_corners=True)
    rows, columns = skip.shape[-2] - grown.shape[-2], skip.shape[-1] - grown.shape[-1]
    if rows == 0 and columns == 0:
        return grown
    return functional.pad(grown, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def build(params: Params, card: ClassifierCard) -> UNet:
    """See `transform.built`."""
    return UNet(params.first_channels)
