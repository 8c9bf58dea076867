"""Labelled grids of images, drawn with the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
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
_TEXT = (40, 40, 40)


def draw_grid(path: Path, rows: Sequence[tuple[str, Tensor]], columns: Sequence[str]) -> None:
    """Writes a PNG with one labelled row of images for each entry.

    Args:
        path: of the picture.
        rows: a title and uint8 [n, 3, H, W] each; small images are enlarged without smoothing.
        columns: a heading for each of the n images.
    """
    width = _MARGIN + len(columns) * (_CELL + _GAP)
    height = _HEADER + len(rows) * (_CELL + _GAP)
    sheet = Image.new("RGB", (max(width, _MARGIN + 200), max(height, _HEADER + _CELL)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for column, heading in enumerate(columns):
        left = _MARGIN + column * (_CELL + _GAP)
        draw.text((left + _CELL // 2, _HEADER // 2), heading[:14], fill=_TEXT, font=font, anchor="mm")
    for row, (title, images) in enumerate(rows):
        top = _HEADER + row * (_CELL + _GAP)
        draw.text((_MARGIN - 8, top + _CELL // 2), title, fill=_TEXT, font=font, anchor="rm")
        for column, image in enumerate(images):
            cell = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            way = Image.Resampling.NEAREST if cell.width <= _CELL else Image.Resampling.BILINEAR
            sheet.paste(cell.resize((_CELL, _CELL), way), (_MARGIN + column * (_CELL + _GAP), top))
    with new_file(path) as partial:
        partial.write_bytes(encode(np.asarray(sheet)))


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels float in [0, 1] to uint8, rounded; values outside are clamped."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
