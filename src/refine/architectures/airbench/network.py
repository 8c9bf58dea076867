"""A network that learns CIFAR-10 in few epochs: whitened patches, then three blocks of two convolutions.

The first layer is computed from a batch of training images and not learned; the other convolutions are initialized as
the identity on their first channels; biases learn faster than weights. At equal width, it needs about a fifth of
ResNet-18's multiplications per image.

Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, sections 3.1 to 3.4; the frozen first layer
follows T. Page, "How to Train Your ResNet", 2019. Optimizer, schedule and augmentation are part of the recipe.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from refine.architectures.airbench.params import Params

PATCH = 2
WHITENED = 2 * 3 * PATCH * PATCH
"""Channels of the first layer: each eigenvector of the patches, with both signs."""
BIAS_SCALE = 8.0
"""Biases are stored divided by this, so that gradient descent learns them 64 times faster, as in the paper."""
LOGIT_SCALE = 1 / 9
_LEAST_VARIANCE = 5e-4


class _Shift(nn.Module):
    """Adds a bias to each channel, which learns faster than the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        return maps + (BIAS_SCALE * self.bias).to(maps.dtype).view(1, -1, 1, 1)  # keeps bfloat16


class _Head(nn.Linear):
    """A linear layer whose logits are scaled down, so that they are small at first."""

    def forward(self, features: Tensor) -> Tensor:
        return functional.linear(features, self.weight) * LOGIT_SCALE


class Airbench(nn.Module):
    """Maps normalized images to logits.

    Args:
        num_classes: K.
        width: channels of the first block (64 in the paper); the other blocks have four times as many.

    Shapes:
        float [N, 3, H, W] with H, W >= 9 to float [N, K]; `features` returns the penultimate float [N, 4 * width].
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, WHITENED, PATCH, bias=False)
        self.whiten.weight.requires_grad_(False)
        self.blocks = nn.Sequential(
            _Shift(WHITENED), nn.GELU(), _block(WHITENED, width), _block(width, 4 * width), _block(4 * width, 4 * width)
        )
        self.head = _Head(4 * width, num_classes, bias=False)

    def init_from_data(self, images: Tensor) -> None:
        """Computes the first layer, so that its outputs are uncorrelated and have a mean square of about 1.

        Args:
            images: float [N, 3, H, W], normalized.
        """
        with torch.no_grad():
            patches = functional.unfold(images, PATCH).transpose(1, 2).flatten(0, 1).double()
            variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
            rows = directions.T / (variances + _LEAST_VARIANCE).sqrt().unsqueeze(1)
            self.whiten.weight.copy_(torch.cat((rows, -rows)).view_as(self.whiten.weight))

    def features(self, images: Tensor) -> Tensor:
        """Penultimate representation: float [N, 4 * width], the maximum of each channel."""
        maps: Tensor = self.blocks(self.whiten(images))
        return maps.amax(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs), nn.MaxPool2d(2), *_normalized(outputs),
        _convolution(outputs, outputs), *_normalized(outputs),
    )  # fmt: skip


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(made.weight[:inputs])
    return made


def _normalized(channels: int) -> tuple[nn.Module, ...]:
    return nn.BatchNorm2d(channels, affine=False, momentum=0.4), _Shift(channels), nn.GELU()


def build(params: Params, num_classes: int, side: int) -> Airbench:
    """A freshly initialized network; see `models.architecture`."""
    del side  # any from 9 on will do
    return Airbench(num_classes, params.width)
