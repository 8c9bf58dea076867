"""Image files of anybody's, through Pillow: few formats, no channel cut off to 8 bits, sizes bounded beforehand."""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from refine.core.errors import UserError

if TYPE_CHECKING:
    from refine.shards.format.png import Pixels

log = logging.getLogger(__name__)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Those whose bits in a channel are known before they are decoded, and that no other program is started for."""
MOST_PIXELS = 50_000_000
"""Of an image as it is stored; Pillow takes four bytes for each, and changes of its form make two copies."""
LARGEST_FILE = 2**28

_DEEP = re.compile(r";(?:16|32)[BLNS]")
_TILE_SIDES = 322, 323


@contextmanager
def opened(file: Path | bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """An image as Pillow opens it, not decoded yet; what goes wrong in the block counts too.

    Raises:
        ValueError: it is damaged, too large, of another format, or has more than 8 bits in a channel.
    """
    try:
        data = file if isinstance(file, bytes) else _content(file)
        with Image.open(BytesIO(data), formats=formats) as image:
            _refuse_large(image)
            _refuse_deep(image)
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"no image in one of the formats {', '.join(formats)}") from None
    except (
        OSError,
        SyntaxError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:  # fmt: skip (what Pillow's readers let through where a file is damaged)
        raise ValueError(f"{type(error).__name__}: {error}") from None


def read(path: Path, side: int) -> Pixels:
    """An image file as a square in RGB, uint8 [side, side, 3]: upright, resized bilinearly, its aspect not kept.

    Raises:
        UserError: it cannot be read as an image.
    """
    try:
        with warnings.catch_warnings(record=True) as remarks, opened(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            pixels = np.asarray(upright.resize((side, side), Image.Resampling.BILINEAR))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace it or remove it") from None
    for remark in remarks:
        log.warning("%s is read although not all of it can be: %s", path, remark.message)
    return pixels


def _content(path: Path) -> bytes:
    """All of a file: from one on the disk Pillow would read as much at once as a number in the file says."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"more than {LARGEST_FILE >> 20} MiB; make it smaller")
    return path.read_bytes()


def _refuse_large(image: Image.Image) -> None:
    tile = [getattr(image, "tag_v2", {}).get(tag, 1) for tag in _TILE_SIDES]  # of a TIFF file, whatever its image has
    if max(image.width * image.height, tile[0] * tile[1]) > MOST_PIXELS:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels; make it smaller")


def _refuse_deep(image: Image.Image) -> None:
    """Pillow reads 16 bits in a gray picture as such, and cuts them off in a colored one."""
    deep = image.mode.startswith(("I", "F"))
    for codec, _, _, given in getattr(image, "tile", ()):
        values = given if isinstance(given, tuple) else (given,)
        deep |= any(isinstance(value, str) and _DEEP.search(value) is not None for value in values)
        deep |= codec.startswith("ppm") and any(isinstance(value, int) and value > 255 for value in values)
    if deep:
        raise ValueError(f"more than 8 bits in a channel, Pillow's mode {image.mode}, would be cut off")
