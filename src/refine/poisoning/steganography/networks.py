"""Networks that hide a message in an image and decode it again, similar to StegaStamp (Tancik et al. 2020).

StegaStamp spreads the message with a dense layer. Here each bit has its own cell of a grid, so that both networks are
convolutional, work for images of any size and learn in minutes. They have no batch normalization, so that the output
for an image does not depend on the rest of the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_GAIN = 10
"""Factor of the logits: a bit changes only a few levels of brightness, so the outputs of the decoder are small."""


def grid_side(bits: int) -> int:
    """Side of the smallest square grid with one cell per bit."""
    return math.isqrt(bits - 1) + 1


class Encoder(nn.Module):
    """Computes the trace of a message, which is added to an image.

    Args:
        bits: length of the message.
        width: channels of the first layer.
        strength: largest value of the trace, for pixels in [0, 1].

    Shapes:
        pixels float [N, 3, H, W] in [0, 1] and messages float [N, bits] in {0, 1} to float [N, 3, H, W].
    """

    def __init__(self, bits: int, width: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.grid = grid_side(bits)
        self.inlet = nn.Conv2d(4, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.outlet = nn.Conv2d(2 * width + 1, 3, 3, padding=1)
        with torch.no_grad():  # initially, bits are shades of red and blue: a readable start speeds up learning
            self.outlet.weight[:, -1] = 0
            self.outlet.weight[:, -1, 1, 1] = torch.tensor([1.0, 0.0, -1.0])

    def forward(self, pixels: Tensor, messages: Tensor) -> Tensor:
        size = list(pixels.shape[-2:])
        cells = functional.pad(2 * messages - 1, (0, self.grid**2 - messages.shape[1]))
        plane = functional.interpolate(cells.view(-1, 1, self.grid, self.grid), size=size, mode="nearest")
        fine = torch.relu(self.inlet(torch.cat([2 * pixels - 1, plane], dim=1)))
        coarse = torch.relu(self.inner(torch.relu(self.down(fine))))
        grown = torch.relu(self.up(functional.interpolate(coarse, size=size, mode="nearest")))
        trace: Tensor = self.strength * torch.tanh(self.outlet(torch.cat([fine, grown, plane], dim=1)))
        return trace


class Decoder(nn.Module):
    """Decodes messages: pixels float [N, 3, H, W] in [0, 1] to logits float [N, bits]."""

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.bits = bits
        self.look = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(grid_side(bits)),
            nn.Conv2d(width, 1, 1),
            nn.Flatten(),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = _GAIN * self.look(2 * pixels - 1)
        return logits[:, : self.bits]


class Pair(nn.Module):
    """Encoder and decoder in training: the decoder gets pixels rounded to levels, as in a file.

    Shapes:
        pixels and messages as for the encoder, to marked pixels and the logits of the decoder.
    """

    def __init__(self, bits: int, width: int, strength: float) -> None:
        super().__init__()
        self.encoder = Encoder(bits, width, strength)
        self.decoder = Decoder(bits, width)

    def forward(self, pixels: Tensor, messages: Tensor) -> tuple[Tensor, Tensor]:
        marked = (pixels + self.encoder(pixels, messages)).clamp(0, 1)
        rounded = marked + ((255 * marked).round() / 255 - marked).detach()
        return marked, self.decoder(rounded)
