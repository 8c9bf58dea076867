"""Figures of matplotlib with the same bytes every time, and names that fit where they are written."""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from refine.core.files import new_file
from refine.shards.format.png import encode

DPI = 100
_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that every machine draws the same letters
    "text.parse_math": False,  # names of classes are anybody's, dollar signs included
    "pdf.fonttype": 42,  # the form of letters that publishers take
}
_LONGEST = 60
_ELLIPSIS = "…"

logging.getLogger("fontTools").setLevel(logging.WARNING)  # which otherwise tells every table that a PDF leaves out


@contextmanager
def same_everywhere() -> Iterator[None]:
    """Figures are made and saved inside: nobody's own settings of matplotlib count, and odd letters do not warn."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(figure: Figure, path: Path, vector: bool) -> None:
    """Writes a figure as PNG and, where `vector` asks for it, beside it as PDF for papers."""
    raw = io.BytesIO()
    figure.savefig(raw, format="rgba")
    width, height = figure.canvas.get_width_height()
    pixels = np.frombuffer(raw.getvalue(), dtype=np.uint8).reshape(height, width, 4)[:, :, :3]
    with new_file(path) as partial:
        partial.write_bytes(encode(np.ascontiguousarray(pixels)))
    if vector:
        nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
        with new_file(path.with_suffix(".pdf")) as partial:
            figure.savefig(partial, format="pdf", metadata=nothing)


def fitted(text: str, width: float, size: float, lines: int = 1) -> str:
    """A name as it fits into a space: on so many lines, and where that is not enough without its middle.

    Args:
        text: anything.
        width: of the space, in points.
        size: of the letters, in points.
        lines: at most.
    """
    text = " ".join(text.split())
    for kept in range(min(len(text), _LONGEST), 0, -1):
        short = text
        if kept < len(text):
            short = f"{text[: -(-kept // 2)]}{_ELLIPSIS}{text[len(text) - kept // 2 :]}"
        for broken in _ways(short, lines):
            if all(_width(line, size) <= width for line in broken):
                return "\n".join(broken)
    return _ELLIPSIS if text else ""


def _ways(text: str, lines: int) -> Iterator[list[str]]:
    """The text on one line, then on more between its words, then inside of them."""
    yield [text]
    for inside in (False, True):
        if lines > 1:
            widths = range(max(1, len(text) // lines), len(text) + 1)
            ways = (textwrap.wrap(text, width, break_long_words=inside) for width in widths)
            yield next(way for way in ways if len(way) <= lines)


def _width(text: str, size: float) -> float:
    width: float = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]
    return width
