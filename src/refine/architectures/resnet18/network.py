"""ResNet-18 for small images: a 3x3 stem of stride 1 and no max-pooling.

The residual block is torchvision's. The stem, the width and the initialization differ from torchvision's ResNet-18:
layers keep torch's default initialization, as in the released code of BackdoorBox and REFINE.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from refine.architectures.resnet18.params import Params


class ResNet18(nn.Module):
    """Maps normalized images to logits.

    Args:
        num_classes: K.
        width: channels of the first stage; 64 in the papers (11,173,962 parameters for K = 10).

    Shapes:
        float [N, 3, H, W] to float [N, K]; `features` returns the penultimate float [N, 8 * width].
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.stages = nn.Sequential(
            _stage(width, width, stride=1),
            _stage(width, 2 * width, stride=2),
            _stage(2 * width, 4 * width, stride=2),
            _stage(4 * width, 8 * width, stride=2),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate representation: float [N, 8 * width], after global average pooling."""
        maps: Tensor = self.stages(self.stem(images))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class _Narrow(nn.Sequential):
    """A 1x1 convolution of every other row and column, and batch normalization.

    The pixels are taken first. On CPUs the gradient of the weights of a convolution with a stride writes past its
    buffer where the inputs are fewer than a vector register holds (oneDNN issue 6035): training then crashes, or goes
    on with wrong numbers.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        convolution, normalization = self
        found: Tensor = normalization(convolution(input[:, :, :: self.stride, :: self.stride]))
        return found


_REGISTER = 16
"""Numbers of 32 bits in a vector register of AVX-512."""


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut: nn.Module | None = None
    if stride != 1 and inputs < _REGISTER:
        shortcut = _Narrow(inputs, outputs, stride)
    elif stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))


def build(params: Params, num_classes: int, side: int) -> ResNet18:
    """A freshly initialized network, with torch's defaults; see `models.architecture`."""
    del side  # any will do
    return ResNet18(num_classes, params.width)
