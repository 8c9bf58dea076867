"""Untrusted image files, opened by Pillow: few formats, at most 8 bits per channel, bounded sizes."""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from refine.core.errors import UserError

Pixels = NDArray[np.uint8]
"""An image, [height, width, 3], RGB."""

log = logging.getLogger(__name__)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats whose bit depth is known before decoding, and for which Pillow starts no other program."""
MOST_PIXELS = 50_000_000
"""Largest stored image. Pillow needs up to four bytes per pixel, and conversions make two copies."""
LARGEST_FILE = 2**28

_DEEP = re.compile(r";(?:16|32)[BLNS]")
_TILE_SIDES = 322, 323


@contextmanager
def opened(file: Path | bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Opens an image with Pillow without decoding it. Errors of Pillow inside the block are converted, too.

    Raises:
        ValueError: the image is damaged, too large, in another format, or has more than 8 bits per channel.
    """
    try:
        data = file if isinstance(file, bytes) else _content(file)
        with Image.open(BytesIO(data), formats=formats) as image:
            _refuse_large(image)
            _refuse_deep(image)
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"not an image in one of the formats {', '.join(formats)}") from None
    except (
        OSError,
        SyntaxError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:  # fmt: skip (what Pillow raises for damaged files)
        raise ValueError(f"{type(error).__name__}: {error}") from None


def read(path: Path, side: int, content: bytes | None = None) -> Pixels:
    """Reads an image file as RGB, uint8 [side, side, 3]: EXIF orientation is applied, and it is resized bilinearly.

    Args:
        path: of the file.
        side: height and width.
        content: see `read_as`.

    Raises:
        UserError: the file cannot be read as an image.
    """
    return read_as(path, lambda image: image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), content)


def read_as(path: Path, shaped: Callable[[Image.Image], Image.Image], content: bytes | None = None) -> Pixels:
    """Reads an image file as RGB, uint8 [height, width, 3], after applying its EXIF orientation.

    Args:
        path: of the file.
        shaped: makes the upright image, in any of Pillow's modes, an RGB image of the wanted size; what it raises as a
            ValueError is wrong with the image.
        content: of the file, if it lies in an archive; the path is then only its name.

    Raises:
        UserError: the file cannot be read as an image.
    """
    try:
        with warnings.catch_warnings(record=True) as remarks, opened(path if content is None else content) as image:
            pixels = np.asarray(shaped(ImageOps.exif_transpose(image)))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace it or remove it") from None
    for remark in remarks:
        log.warning("%s can only be read in part: %s", path, remark.message)
    return pixels


def _content(path: Path) -> bytes:
    """The whole file: given a path, Pillow would allocate whatever size a number in the file claims."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"more than {LARGEST_FILE >> 20} MiB; make it smaller")
    return path.read_bytes()


def _refuse_large(image: Image.Image) -> None:
    tile = [getattr(image, "tag_v2", {}).get(tag, 1) for tag in _TILE_SIDES]  # a TIFF tile may exceed the image
    if max(image.width * image.height, tile[0] * tile[1]) > MOST_PIXELS:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels; make it smaller")


def _refuse_deep(image: Image.Image) -> None:
    """Pillow keeps 16 bits in gray images, but truncates them to 8 in color images without a warning."""
    deep = image.mode.startswith(("I", "F"))
    for codec, _, _, given in getattr(image, "tile", ()):
        values = given if isinstance(given, tuple) else (given,)
        deep |= any(isinstance(value, str) and _DEEP.search(value) is not None for value in values)
        deep |= codec.startswith("ppm") and any(isinstance(value, int) and value > 255 for value in values)
    if deep:
        raise ValueError(f"more than 8 bits per channel (Pillow's mode {image.mode}) would be truncated")
