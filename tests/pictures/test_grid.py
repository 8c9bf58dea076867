"""Grids of images, read back from their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refine.pictures.grid import Grid, difference, draw_grids


def _drawn(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB")))


def test_one_grid_lies_below_the_other(tmp_path: Path) -> None:
    one, two = (torch.full((2, 3, 8, 8), level, dtype=torch.uint8) for level in (50, 200))
    draw_grids(tmp_path / "a.png", Grid(["x", "y"], [("one", one)]), Grid(["x"], [("two", two[:1])]))
    pixels = _drawn(tmp_path / "a.png")
    assert pixels.shape[0] == 2 * 124
    assert (pixels[24:120, 120:216] == 50).all()
    assert (pixels[148:244, 120:216] == 200).all()


def test_a_heading_is_made_smaller_until_it_fits_its_column(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    draw_grids(tmp_path / "a.png", Grid(["a heading of 22 letters", ""], [("row", images)]))
    headings = _drawn(tmp_path / "a.png")[:24]
    assert (headings[:, 120:216] < 128).any()
    assert (headings[:, 216:] == 255).all()


def test_a_difference_is_brightened_by_a_whole_factor_that_its_title_tells() -> None:
    clean = torch.tensor([[[[10, 20]]]], dtype=torch.uint8).expand(1, 3, 1, 2)
    title, shown = difference(clean, clean + torch.tensor([0, 16], dtype=torch.uint8))
    assert title == "difference x 15"
    assert shown[0, 0].tolist() == [[0, 240]]


def test_a_strong_difference_and_none_are_shown_as_they_are() -> None:
    clean = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    assert difference(clean, clean + 200)[0] == "difference"
    title, shown = difference(clean, clean)
    assert not shown.any()
    assert title == "difference"
