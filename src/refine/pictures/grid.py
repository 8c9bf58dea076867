"""Labeled grids of images, saved as the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from refine.pictures.figure import DPI, fitted, same_everywhere, save
from refine.shards.format.foreign import Pixels

_CELL = 96
_GAP = 4
_MARGIN = 120
_HEADER = 36
_CAPTION = 18
_KEY = 26
_SIZE = 9.0
_SMALL = 8.0
_TEXT = "#282828"
_POINTS = 72 / DPI


@dataclass(frozen=True)
class Caption:
    """A short text below an image, and its color."""

    text: str
    color: str = _TEXT


@dataclass(frozen=True)
class Grid:
    """Rows of images with column headings.

    Attributes:
        columns: headings, one per image of a row.
        rows: title and images, uint8 [n, 3, H, W]; small images are enlarged without smoothing.
        captions: for each row, a title and one caption per image; empty for a grid without captions.
        key: legend below the grid, one line.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Tensor]]
    captions: Sequence[tuple[str, Sequence[Caption]]] = ()
    key: str = ""

    @property
    def step(self) -> int:
        """Distance between rows, in pixels."""
        return _CELL + _GAP + (_CAPTION if self.captions else 0)

    @property
    def height(self) -> int:
        """Height of the grid, in pixels."""
        return _HEADER + len(self.rows) * self.step + (_KEY if self.key else 0)


def draw_grids(path: Path, *grids: Grid, vector: bool = False) -> None:
    """Writes a PNG with the grids below each other.

    Args:
        path: of the PNG file.
        grids: from top to bottom.
        vector: also write a PDF beside it.
    """
    width = _MARGIN + max(2, *(len(grid.columns) for grid in grids)) * (_CELL + _GAP)
    height = max(_HEADER + _CELL, sum(grid.height for grid in grids))
    tops = np.cumsum([0, *(grid.height for grid in grids)]).tolist()
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    with same_everywhere():
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for top, grid in zip(tops, grids, strict=False):
            _paste(sheet, top, grid)
            _write(axes, top, grid)
        axes.imshow(sheet, interpolation="none", extent=(0, width, height, 0), aspect="auto")
        save(figure, path, vector)


def _paste(sheet: Pixels, top: int, grid: Grid) -> None:
    for row, (_, images) in enumerate(grid.rows):
        upper = top + _HEADER + row * grid.step
        for column, image in enumerate(images):
            cell = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            resampling = Image.Resampling.NEAREST if cell.width <= _CELL else Image.Resampling.BILINEAR
            left = _left(column)
            sheet[upper : upper + _CELL, left : left + _CELL] = np.asarray(cell.resize((_CELL, _CELL), resampling))


def _write(axes: Axes, top: int, grid: Grid) -> None:
    """Writes headings, titles, captions and legend; coordinates are in pixels."""
    first = top + _HEADER
    for column, heading in enumerate(grid.columns):
        _say(axes, (_middle(column), top + _HEADER / 2), heading, lines=2)
    for row, (title, _) in enumerate(grid.rows):
        _say(axes, (_MARGIN - 8, first + row * grid.step + _CELL / 2), title, lines=3, align="right", room=_MARGIN - 12)
    for row, (title, captions) in enumerate(grid.captions):
        line = first + row * grid.step + _CELL + _CAPTION / 2
        _say(axes, (_MARGIN - 8, line), title, size=_SMALL, align="right", room=_MARGIN - 12)
        for column, caption in enumerate(captions):
            _say(axes, (_middle(column), line), caption.text, size=_SMALL, color=caption.color)
    if grid.key:
        line = first + len(grid.rows) * grid.step + _KEY / 2
        axes.text(_MARGIN, line, grid.key, fontsize=_SMALL, color=_TEXT, va="center")


def _say(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    *,
    size: float = _SIZE,
    lines: int = 1,
    align: Literal["center", "right"] = "center",
    room: float = _CELL - _GAP,
    color: str = _TEXT,
) -> None:
    short = fitted(text, room * _POINTS, size, lines)
    axes.text(*place, short, fontsize=size, color=color, ha=align, va="center_baseline", linespacing=1.1)


def _left(column: int) -> int:
    return _MARGIN + column * (_CELL + _GAP)


def _middle(column: int) -> float:
    return _left(column) + _CELL / 2


def to_bytes(pixels: Tensor) -> Tensor:
    """Converts float pixels in [0, 1] to uint8 by rounding; values outside are clamped."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
