"""Draws the example for the attack `custom`: a striped sticker on a transparent ground.

python -m refine.reports.example
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from refine.core.errors import UserError, command
from refine.core.files import new_file

PLACE = Path("data/own/attack/example.png")
_SIDE = 64
_STICKER = (44, 44, 62, 62)
_STRIPES = ((250, 200, 30, 255), (30, 90, 200, 255))


def draw() -> Image.Image:
    """The picture, RGBA, 64 pixels high and wide; the sticker lies near the bottom right corner."""
    ground = Image.new("RGBA", (_SIDE, _SIDE))
    stripes = ImageDraw.Draw(ground)
    left, top, right, bottom = _STICKER
    for row in range(top, bottom):
        stripes.line([(left, row), (right - 1, row)], fill=_STRIPES[(row - top) // 4 % 2])
    disc = Image.new("L", ground.size)
    ImageDraw.Draw(disc).ellipse((left, top, right - 1, bottom - 1), fill=255)
    ground.putalpha(disc)
    return ground


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    argparse.ArgumentParser(
        prog="python -m refine.reports.example", description=f"Draws the example for the attack custom, {PLACE}."
    ).parse_args(arguments)
    if not PLACE.parent.is_dir():
        raise UserError(f"{PLACE.parent} is no folder here; go to the checkout's folder")
    with new_file(PLACE) as partial:
        draw().save(partial, format="PNG")


if __name__ == "__main__":
    command(main)
