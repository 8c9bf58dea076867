"""Random changes of colors, for whole batches, one draw per image; distributions and formulas are torchvision's.

Images are float [N, H, 3, W], the memory order of images at rest (`shards.reading.pixels`).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.training.recipe import Jitter

_LUMA = (0.2989, 0.587, 0.114)
_SIXTHS = 6
_SECTORS = (5, 3, 1)
"""Where red, green and blue fall off on the circle of hues, in sixths of it."""


def grayed(resting: Tensor, rows: Tensor) -> Tensor:
    """These rows, int64 [M], in gray; the others as they are."""
    return resting.index_copy(0, rows, _luma(resting[rows]).expand(-1, -1, 3, -1))


def jittered(resting: Tensor, settings: Jitter, generator: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in an order that is drawn for each image.

    Args:
        resting: in [0, 1].
        settings: how much, and how often.
        generator: on the device of the images.
    """
    most = settings.brightness, settings.contrast, settings.saturation, settings.hue
    draws = torch.rand((1 + 2 * len(most), len(resting)), generator=generator, device=resting.device)
    rows = (draws[0] < settings.probability).nonzero().flatten()
    amounts = (2 * draws[1 : 1 + len(most), rows] - 1) * torch.tensor(most, device=resting.device).unsqueeze(1)
    order = draws[1 + len(most) :, rows].argsort(dim=0)
    changed = resting[rows]
    for turn in order:
        for number, change in enumerate(_CHANGES):
            own = (turn == number).nonzero().flatten()
            changed.index_copy_(0, own, change(changed[own], amounts[number, own].view(-1, 1, 1, 1).to(resting.dtype)))
    return resting.index_copy(0, rows, changed)


def _luma(resting: Tensor) -> Tensor:
    """Brightness as people see it, float [N, H, 1, W]."""
    red, green, blue = (weight * resting[:, :, channel] for channel, weight in enumerate(_LUMA))
    return (red + green + blue).unsqueeze(2)


def _brightened(resting: Tensor, amount: Tensor) -> Tensor:
    return (resting * (1 + amount)).clamp_(0, 1)


def _contrasted(resting: Tensor, amount: Tensor) -> Tensor:
    mean = _luma(resting).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, resting, 1 + amount).clamp_(0, 1)


def _saturated(resting: Tensor, amount: Tensor) -> Tensor:
    return torch.lerp(_luma(resting), resting, 1 + amount).clamp_(0, 1)


def _turned(resting: Tensor, amount: Tensor) -> Tensor:
    """Hues turned by a share of the circle.

    With V the largest and V - C the least of the three values of a pixel, and H its hue in sixths of the circle, red is
    V - C * min(k, 4 - k, 1) for k = (5 + H) mod 6, and 0 where that is negative; green and blue lie two and four sixths
    further. So saturation is not needed.
    """
    red, green, blue = resting.unbind(dim=2)
    value, spread = resting.amax(dim=2), resting.amax(dim=2) - resting.amin(dim=2)
    divisor = torch.where(spread == 0, torch.ones_like(spread), spread)
    of_green, of_blue = (blue - red) / divisor + 2, (red - green) / divisor + 4
    hue = torch.where(value == green, of_green, of_blue)
    hue = torch.where(value == red, (green - blue) / divisor, hue) + _SIXTHS * amount.squeeze(2)
    places = (hue.remainder(_SIXTHS) + sector for sector in _SECTORS)
    falls = ((place % _SIXTHS) for place in places)
    return torch.stack([value - spread * torch.minimum(k, 4 - k).clamp_(0, 1) for k in falls], dim=2)


_CHANGES = (_brightened, _contrasted, _saturated, _turned)
