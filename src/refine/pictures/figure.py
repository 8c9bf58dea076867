"""Matplotlib figures that are saved as the same bytes every time, and text that is shortened to fit."""

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
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that all machines have it
    "text.parse_math": False,  # names of classes may contain dollar signs
    "pdf.fonttype": 42,  # TrueType, which publishers require
}
_LONGEST = 60
_ELLIPSIS = "…"

logging.getLogger("fontTools").setLevel(logging.WARNING)  # otherwise lists every table that a PDF omits


@contextmanager
def same_everywhere() -> Iterator[None]:
    """Context for making and saving figures: ignores the user's matplotlib settings, and missing glyphs."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(figure: Figure, path: Path, vector: bool) -> None:
    """Writes a figure as PNG and, if `vector` is true, also as PDF beside it."""
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
    """Breaks a text into lines, and if it still does not fit, replaces its middle with an ellipsis.

    Args:
        text: any text.
        width: available width, in points.
        size: font size, in points.
        lines: maximum number of lines.
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
    """The text on one line, then broken between words, then broken inside words."""
    yield [text]
    for inside in (False, True):
        if lines > 1:
            widths = range(max(1, len(text) // lines), len(text) + 1)
            ways = (textwrap.wrap(text, width, break_long_words=inside) for width in widths)
            yield next(way for way in ways if len(way) <= lines)


def _width(text: str, size: float) -> float:
    width: float = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]
    return width
