"""The forms for 224 pixels on real photographs, against the same slow readings of the published formulas."""

from __future__ import annotations

import math
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from refine.download.source import Source
from refine.sources import folder
from tiny import is_nearest, ready

SIDE = 224


@pytest.fixture(scope="module")
def photographs(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """The first image of each of the ten classes, uint8 [10, 3, 224, 224]."""
    root = datasets / "imagenette-224-subset"
    if not root.is_dir():
        pytest.skip(f"needs {root}, which this mirror does not hold")
    source = Source(None, datasets, tmp_path_factory.mktemp("cache"))
    opened = folder.open_source(folder.Params(path=str(root), side=SIDE), source)
    firsts = [next(samples) for _, samples in groupby(opened.test, key=lambda sample: sample.label)]
    return torch.stack([torch.from_numpy(sample.image.copy()).permute(2, 0, 1) for sample in islice(firsts, 10)])


def _triggered(photographs: Tensor, name: str, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    made = ready(name, SIDE, **settings)
    return made.trigger(photographs, torch.arange(len(photographs))), made.tensors


def test_the_photographs_are_ten_different_ones(photographs: Tensor) -> None:
    assert photographs.shape == (10, 3, SIDE, SIDE)
    assert len({image.numpy().tobytes() for image in photographs}) == 10


def test_badnets_is_a_random_texture_of_20_pixels_in_the_corner(photographs: Tensor) -> None:
    triggered, tensors = _triggered(photographs, "badnets")
    expected = photographs.clone()
    for row in range(204, 224):
        for column in range(204, 224):
            expected[:, :, row, column] = tensors["pattern"][:, row - 204, column - 204]
    assert torch.equal(triggered, expected)


def test_badnets_of_the_second_paper_is_a_white_square_of_22_pixels_in_the_corner(photographs: Tensor) -> None:
    triggered, _ = _triggered(photographs, "badnets_square", target=0, margin=0)
    expected = photographs.clone()
    for row in range(202, 224):
        for column in range(202, 224):
            expected[:, :, row, column] = 255
    assert torch.equal(triggered, expected)


@pytest.mark.parametrize(("name", "alpha"), [("blended", 0.1), ("blend_kitty", 0.2)])
def test_a_picture_of_224_pixels_is_blended_into_the_whole_image(photographs: Tensor, name: str, alpha: float) -> None:
    triggered, tensors = _triggered(photographs, name)
    exact = np.zeros(photographs.shape)
    for row in range(SIDE):
        exact[:, :, row] = (1 - alpha) * photographs[:, :, row].numpy() + alpha * tensors["picture"][:, row].numpy()
    assert is_nearest(triggered, exact)


def test_strip_is_six_sine_stripes_of_four_levels_on_an_image_darkened_to_80_percent(photographs: Tensor) -> None:
    triggered, _ = _triggered(photographs, "blend_strip")
    exact = np.zeros(photographs.shape)
    for column in range(SIDE):
        stripe = 20 * math.sin(2 * math.pi * 6 * column / SIDE)
        exact[..., column] = 0.8 * photographs[..., column].numpy() + 0.2 * stripe
    assert is_nearest(triggered, exact)
    darker = photographs.double().mean() - triggered.double().mean()
    assert float(darker / photographs.double().mean()) == pytest.approx(0.2, abs=0.01)
