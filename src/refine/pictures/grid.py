"""Labelled grids of images, drawn with the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from refine.data.format.png import encode
from refine.system.files import new_file

_CELL = 96
_GAP = 4
_MARGIN = 120
_HEADER = 24
_LONGEST = 24
_SMALLEST_FONT = 8
_TEXT = (40, 40, 40)


@dataclass(frozen=True)
class Grid:
    """Rows of images under one line of headings.

    Attributes:
        columns: a heading for each image of a row.
        rows: a title and uint8 [n, 3, H, W] each; small images are enlarged without smoothing.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Tensor]]

    @property
    def height(self) -> int:
        """In pixels."""
        return _HEADER + len(self.rows) * (_CELL + _GAP)


def draw_grids(path: Path, *grids: Grid) -> None:
    """Writes a PNG with one grid below the other."""
    width = _MARGIN + max(len(grid.columns) for grid in grids) * (_CELL + _GAP)
    sheet = Image.new(
        "RGB", (max(width, _MARGIN + 200), max(sum(grid.height for grid in grids), _HEADER + _CELL)), "white"
    )
    top = 0
    for grid in grids:
        _draw(sheet, top, grid)
        top += grid.height
    with new_file(path) as partial:
        partial.write_bytes(encode(np.asarray(sheet)))


def _draw(sheet: Image.Image, top: int, grid: Grid) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for column, heading in enumerate(grid.columns):
        left = _MARGIN + column * (_CELL + _GAP)
        fitting = next(
            ImageFont.load_default(size) for size in (13, 11, 9, _SMALLEST_FONT) if _fits(draw, heading, size)
        )
        draw.text((left + _CELL // 2, top + _HEADER // 2), heading[:_LONGEST], fill=_TEXT, font=fitting, anchor="mm")
    for row, (title, images) in enumerate(grid.rows):
        upper = top + _HEADER + row * (_CELL + _GAP)
        draw.text((_MARGIN - 8, upper + _CELL // 2), title, fill=_TEXT, font=font, anchor="rm")
        for column, image in enumerate(images):
            cell = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            way = Image.Resampling.NEAREST if cell.width <= _CELL else Image.Resampling.BILINEAR
            sheet.paste(cell.resize((_CELL, _CELL), way), (_MARGIN + column * (_CELL + _GAP), upper))


def _fits(draw: ImageDraw.ImageDraw, heading: str, size: int) -> bool:
    return size == _SMALLEST_FONT or draw.textlength(heading, ImageFont.load_default(size)) <= _CELL


def difference(clean: Tensor, changed: Tensor) -> tuple[str, Tensor]:
    """A titled row of what differs between images uint8 [n, 3, H, W], brightened by a whole factor to be seen."""
    apart = (changed.int() - clean.int()).abs()
    factor = 255 // int(apart.max()) if apart.any() else 1
    return "difference" if factor == 1 else f"difference x {factor}", (apart * factor).to(torch.uint8)


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels float in [0, 1] to uint8, rounded; values outside are clamped."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
