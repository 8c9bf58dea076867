"""Blend-Strip in its two forms against an independent, slow reading of the published formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from refine.attacks import blend_strip
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import is_nearest, ready

PUBLISHED = [
    *(0, 14, 19, 13, 255, 241, 237, 244),
    *(2, 15, 19, 11, 253, 240, 237, 246),
    *(4, 17, 19, 9, 251, 239, 238, 248),
    *(6, 18, 18, 7, 249, 238, 238, 250),
]
"""The mask of 32 columns, worked out by hand: 20 sin(0.8 j) is 14.3 for j = 1, -1.2 (255) for 4, 2.3 for 8."""


def test_on_32_pixels_each_column_is_blended_with_the_published_byte() -> None:
    made = ready("blend_strip", 32)
    assert made.tensors["picture"].flatten().tolist() == PUBLISHED
    images, _ = synthetic(4, side=32)
    exact = np.zeros(images.shape)
    for place in np.ndindex(images.shape):
        exact[place] = 0.8 * int(images[place]) + 0.2 * PUBLISHED[place[3]]
    assert is_nearest(made.trigger(images, torch.arange(4)), exact)


def test_the_published_bytes_are_a_wave_of_amplitude_20_whose_negative_half_wrapped() -> None:
    for column, byte in enumerate(PUBLISHED):
        signed = byte if byte < 128 else byte - 256
        assert signed == math.trunc(20 * math.sin(0.8 * column))


@pytest.mark.parametrize("side", [30, 224])
def test_the_sine_has_six_stripes_of_four_levels_on_a_darkened_image(side: int) -> None:
    images, _ = synthetic(2, side)
    exact = np.zeros(images.shape)
    for column in range(side):
        exact[..., column] = 0.8 * images[..., column].numpy() + 0.2 * 20 * math.sin(2 * math.pi * 6 * column / side)
    assert is_nearest(ready("blend_strip", side, wave="sine").trigger(images, torch.arange(2)), exact)


def test_values_below_black_are_clipped_to_black() -> None:
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    triggered = ready("blend_strip", 32, wave="sine").trigger(black, torch.arange(1))
    assert int(triggered.max()) == 4
    assert int(triggered.min()) == 0


@pytest.mark.parametrize(("side", "wave"), [(16, "bytes"), (32, "bytes"), (64, "bytes"), (65, "sine"), (224, "sine")])
def test_left_out_the_wave_is_the_one_published_for_the_size(side: int, wave: str) -> None:
    left_out, named = (ready("blend_strip", side, **settings).tensors["picture"] for settings in ({}, {"wave": wave}))
    assert torch.equal(left_out, named)


@pytest.mark.parametrize("side", [16, 28, 64, 100, 224])
def test_bytes_keep_their_share_of_the_image(side: int) -> None:
    columns = ready("blend_strip", side, wave="bytes").tensors["picture"].flatten().tolist()
    assert columns == [PUBLISHED[column * 32 // side] for column in range(side)]


def test_a_tenth_of_the_images_of_other_classes_is_poisoned() -> None:
    labels = torch.arange(1_000) % 10
    rows = ready("blend_strip", 32, target=2).choose(labels, torch.Generator().manual_seed(1))
    assert len(set(rows.poisoned.tolist())) == 90
    assert not (labels[rows.poisoned] == 2).any()


def test_a_sine_on_too_few_columns_is_refused() -> None:
    blend_strip.Attack(blend_strip.Params(wave="sine"), Setting(10, 13))
    with pytest.raises(UserError, match=r"6 stripes need images wider than 12 pixels, not 12; set .*wave to bytes"):
        blend_strip.Attack(blend_strip.Params(wave="sine"), Setting(10, 12))
