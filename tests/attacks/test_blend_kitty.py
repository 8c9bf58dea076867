"""Blend-Kitty against an independent, slow reading of the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from refine.attacks.blend_kitty import GREEN, SHAPES, WHITE, draw
from support import synthetic
from tiny import faintness, is_nearest, ready


def _slowly(side: int) -> Tensor:
    """The cat by a probe in the middle of each pixel, one point at a time."""
    picture = torch.zeros(3, side, side, dtype=torch.uint8)
    for row in range(side):
        for column in range(side):
            x, y = (column + 0.5) / side, (row + 0.5) / side
            color = next((color for color, shape in reversed(SHAPES) if _holds(shape, x, y)), WHITE)
            picture[:, row, column] = torch.tensor(color)
    return picture


def _holds(shape: tuple[tuple[float, float], ...], x: float, y: float) -> bool:
    if len(shape) == 2:
        (left, top), (wide, tall) = shape
        return ((x - left) / wide) ** 2 + ((y - top) / tall) ** 2 < 1
    signs = []
    for number in range(3):
        (ax, ay), (bx, by) = shape[number], shape[(number + 1) % 3]
        signs.append((bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0)
    return len(set(signs)) == 1


def test_the_cat_is_drawn_as_its_shapes_say() -> None:
    assert torch.equal(draw(32), _slowly(32))


@pytest.mark.parametrize("side", [32, 224])
def test_triggered_photographs_are_as_far_from_clean_ones_as_those_with_the_published_picture(side: int) -> None:
    assert faintness(draw(side), 0.2) == pytest.approx(19, abs=0.1)


@pytest.mark.parametrize("side", [1, 16, 32, 33, 224])
def test_the_cat_has_the_size_of_the_images(side: int) -> None:
    assert draw(side).shape == (3, side, side)
    assert draw(side).dtype == torch.uint8


def test_the_cat_has_two_green_eyes_in_its_face_and_none_in_its_corners() -> None:
    cat = draw(100)
    for row, column in ((53, 26), (53, 74)):
        assert tuple(cat[:, row, column].tolist()) == GREEN
    for row, column in ((0, 0), (0, 99), (99, 0), (99, 99)):
        assert tuple(cat[:, row, column].tolist()) == WHITE


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_each_pixel_is_the_nearest_level_to_the_formula(alpha: float) -> None:
    images, cat = synthetic(3, side=24)[0], draw(24)
    exact = np.zeros(images.shape)
    for place in np.ndindex(images.shape):
        exact[place] = (1 - alpha) * int(images[place]) + alpha * int(cat[place[1:]])
    assert is_nearest(ready("blend_kitty", 24, alpha=alpha).trigger(images, torch.arange(3)), exact)


def test_a_tenth_of_the_images_of_other_classes_is_poisoned() -> None:
    labels = torch.arange(1_000) % 10
    rows = ready("blend_kitty", 32, target=2).choose(labels, torch.Generator().manual_seed(1))
    assert len(set(rows.poisoned.tolist())) == 90
    assert not (labels[rows.poisoned] == 2).any()
