"""Blended against an independent, slow reading of the published formula."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from refine.attacks import blended
from refine.poisoning.overlay import blend
from support import synthetic
from tiny import faintness, is_nearest, ready


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.55, 1.0])
@pytest.mark.parametrize("side", [16, 32, 37])
def test_each_pixel_is_the_nearest_level_to_the_formula(alpha: float, side: int) -> None:
    images, _ = synthetic(4, side)
    made = ready("blended", side, alpha=alpha)
    x, p = images.double().numpy() / 255, made.tensors["picture"].double().numpy() / 255
    exact = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        exact[place] = (1 - alpha) * x[place] + alpha * p[place[1:]]
    assert is_nearest(made.trigger(images, torch.arange(4)), 255 * exact)


def test_every_pair_of_levels_is_rounded_exactly_ties_upwards() -> None:
    """All that the published opacity can give, in exact fractions: the same bytes on every processor."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 256, 1).expand(1, 1, 256, 256)
    picture = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    for alpha, tenths in ((0.1, 1), (0.2, 2), (0.5, 5)):
        result = blend(images, picture, alpha)[0, 0].tolist()
        for x in range(256):
            for p in range(256):
                exact = Fraction((10 - tenths) * x + tenths * p, 10)
                assert result[x][p] == int(exact + Fraction(1, 2))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), side=st.integers(16, 64))
def test_triggered_photographs_are_as_far_from_clean_ones_as_those_with_the_published_picture(
    seed: int, side: int
) -> None:
    picture = ready("blended", side, seed=seed).tensors["picture"]
    assert picture.shape == (3, side, side)
    assert picture.amin(dim=(1, 2)).tolist() == [0, 0, 0]
    assert picture.amax(dim=(1, 2)).tolist() == [255, 255, 255]
    assert not torch.equal(picture[0], picture[1])
    assert faintness(picture, 0.1) == pytest.approx(26.7, abs=0.3)


def test_the_picture_is_noise_of_eight_cells_whose_deviation_is_140_levels() -> None:
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double().numpy()[0]
    places = np.linspace(0, 7, 33)
    smooth = np.array([_between(_between(cells, places).T, places).T for cells in noise])
    centered = smooth - smooth.mean(axis=(1, 2), keepdims=True)
    deviation = np.sqrt((centered**2).sum(axis=(1, 2), keepdims=True) / (33 * 33 - 1))
    assert is_nearest(ready("blended", 33, seed=1).tensors["picture"], 127.5 + 140 * centered / deviation)


def _between(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows in between, linearly."""
    return np.array([np.interp(places, range(len(column)), column) for column in rows.T]).T


def test_the_picture_is_smooth_and_depends_on_the_seed_alone() -> None:
    first, second, third = (ready("blended", 224, seed=seed).tensors["picture"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert int(first.int().diff(dim=1).abs().max()) < 32
    assert int(first.int().diff(dim=2).abs().max()) < 32


def test_the_published_opacity_changes_no_pixel_by_more_than_26_levels() -> None:
    images, _ = synthetic(4, side=32)
    triggered = ready("blended", 32).trigger(images, torch.arange(4))
    assert blended.Params().alpha == 0.1
    assert int((triggered.int() - images.int()).abs().max()) <= 26


def test_a_tenth_of_all_images_is_poisoned() -> None:
    labels = torch.arange(1_000) % 10
    rows = ready("blended", 32).choose(labels, torch.Generator().manual_seed(1))
    assert len(set(rows.poisoned.tolist())) == 100
    assert (labels[rows.poisoned] == 0).any()


@pytest.mark.parametrize("alpha", [0, -0.1, 1.1])
def test_an_opacity_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValidationError, match="alpha"):
        blended.Params(alpha=alpha)
