"""Grids of images, read back from their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refine.pictures.grid import Caption, Grid, draw_grids


def _drawn(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB")))


def test_one_grid_lies_below_the_other(tmp_path: Path) -> None:
    one, two = (torch.full((2, 3, 8, 8), level, dtype=torch.uint8) for level in (50, 200))
    draw_grids(tmp_path / "a.png", Grid(["x", "y"], [("one", one)]), Grid(["x"], [("two", two[:1])]))
    pixels = _drawn(tmp_path / "a.png")
    assert pixels.shape[0] == 2 * 136
    assert (pixels[36:132, 120:216] == 50).all()
    assert (pixels[172:268, 120:216] == 200).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_pixels_of_an_image_are_enlarged_without_smoothing_at_their_place(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    draw_grids(tmp_path / "a.png", Grid(["x", "y", "z"], [("one", images), ("two", images.flip(0))]))
    pixels = _drawn(tmp_path / "a.png")
    for row, shown in enumerate((images, images.flip(0))):
        for column, image in enumerate(shown):
            upper, left = 36 + 100 * row, 120 + 100 * column
            enlarged = image.permute(1, 2, 0).repeat_interleave(6, 0).repeat_interleave(6, 1)
            assert torch.equal(pixels[upper : upper + 96, left : left + 96], enlarged)


@pytest.mark.parametrize("name", ["a heading of 22 letters", "W" * 300, "$\\frac$ _x"])
def test_a_heading_stays_in_its_column(tmp_path: Path, name: str) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    draw_grids(tmp_path / "a.png", Grid([name, ""], [("row", images)]))
    headings = _drawn(tmp_path / "a.png")[:36]
    assert (headings[:, 120:216] < 128).any()
    assert (headings[:, 216:] == 255).all()
    assert (headings[:, :120] == 255).all()


def test_captions_stand_below_their_images_in_their_colors_and_the_key_below_all(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    captions = [("says", [Caption("cat", "#ff0000"), Caption("dog", "#0000ff")])]
    draw_grids(tmp_path / "a.png", Grid(["x", "y"], [("row", images)], captions, "the key"), vector=True)
    pixels = _drawn(tmp_path / "a.png").int()
    assert pixels.shape[0] == 36 + 96 + 4 + 18 + 26
    below = pixels[132:150]
    red, blue = (below[..., 0] - below[..., 2] > 100), (below[..., 2] - below[..., 0] > 100)
    assert red[:, 120:216].any()
    assert not red[:, 216:].any()
    assert blue[:, 220:316].any()
    assert not blue[:, :220].any()
    assert (below[:, :116] < 128).any()
    assert (pixels[154:] < 128).any()
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_large_images_are_made_smaller(tmp_path: Path) -> None:
    draw_grids(tmp_path / "a.png", Grid(["x"], [("row", torch.full((1, 3, 224, 224), 77, dtype=torch.uint8))]))
    assert (_drawn(tmp_path / "a.png")[36:132, 120:216] == 77).all()
