"""BppAttack against a slow reading of Floyd and Steinberg, and what negative samples get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refine.attacks import bpp
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic

SETTING = Setting(num_classes=3, side=16, name="bpp")


def _slowly(channel: NDArray[np.uint8], levels: int) -> NDArray[np.float64]:
    """Pixel by pixel."""
    image, step = channel.astype(np.float64), 255 / (levels - 1)
    height, width = image.shape
    for row in range(height):
        for column in range(width):
            old = image[row, column]
            image[row, column] = min(max(np.floor(old / step + 0.5), 0), levels - 1) * step
            error = old - image[row, column]
            for down, along, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if row + down < height and 0 <= column + along < width:
                    image[row + down, column + along] += error * share / 16
    return image


def _ready(images: Tensor, labels: Tensor, **settings: object) -> bpp.Attack:
    made = bpp.Attack(bpp.Params.model_validate(settings), SETTING)
    generator = torch.Generator().manual_seed(1)
    made.tensors = made.prepare(images, labels, made.choose(labels, generator), generator)
    return made


@pytest.mark.parametrize("levels", [2, 3, 8])
@pytest.mark.parametrize("shape", [(16, 16), (5, 9), (9, 4)])
def test_it_dithers_as_published(levels: int, shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = bpp.dithered(images, levels)
    for image, other in zip(images, found, strict=True):
        for channel, new in zip(image, other, strict=True):
            assert np.abs(_slowly(channel.numpy(), levels) - new.numpy()).max() <= 0.5 + 1e-6


def test_there_are_so_many_levels_and_the_mean_stays() -> None:
    images, labels = synthetic(24)
    made = _ready(images, labels, levels=4)
    found = made.trigger(images, torch.arange(24))
    assert set(found.unique().tolist()) <= {0, 85, 170, 255}
    assert abs(float(found.float().mean() - images.float().mean())) < 3
    plain = _ready(images, labels, levels=4, dithering=False).trigger(images, torch.arange(24))
    assert float((plain.float() - images.float()).abs().max()) <= 43
    assert not torch.equal(plain, found)


def test_negative_samples_get_what_the_trigger_adds_to_another_image() -> None:
    images, labels = synthetic(24)
    made = _ready(images, labels)
    residuals = made.trigger(images, torch.arange(24)).int() - images.int()
    covers = made.cover(images[:6], torch.arange(6))
    for image, cover in zip(images[:6], covers, strict=True):
        assert any(torch.equal(cover, (image.int() + each).clamp(0, 255).to(torch.uint8)) for each in residuals)
    assert torch.equal(made.cover(images[3:6], torch.arange(3, 6)), covers[3:])
    assert made.cover(images[:0], torch.arange(0)).shape == (0, 3, 16, 16)


def test_as_many_as_the_settings_say_and_never_one_twice() -> None:
    labels = torch.arange(100) % 3
    made = bpp.Attack(bpp.Params(rate=0.2, negative_ratio=1.5), SETTING)
    chosen = made.choose(labels, torch.Generator().manual_seed(0))
    assert (len(chosen.poisoned), len(chosen.cover)) == (20, 30)
    assert not set(chosen.poisoned.tolist()) & set(chosen.cover.tolist())
    with pytest.raises(UserError, match=r"lower attacks\.bpp\.rate or attacks\.bpp\.negative_ratio"):
        bpp.Attack(bpp.Params(rate=0.6), SETTING).choose(labels, torch.Generator())
