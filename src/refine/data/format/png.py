"""PNG files whose bytes do not depend on the machine.

Pillow compresses with the zlib it finds, and zlib and zlib-ng give different bytes. A PNG may also hold its
pixels uncompressed, in "stored" deflate blocks: then every byte is laid down by the standard (RFC 1950, 1951, 2083).
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STORED_BLOCK = 65535


def encode(image: Pixels) -> bytes:
    """An RGB image as PNG.

    Args:
        image: uint8 [H, W, 3], RGB.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(rows.tobytes())), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks."""
    parts = [b"\x78\x01"]
    for start in range(0, len(data), _STORED_BLOCK):
        block = data[start : start + _STORED_BLOCK]
        last = start + _STORED_BLOCK >= len(data)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack(">I", zlib.adler32(data)))
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def as_pixels(image: Any) -> Pixels:
    """A grey [H, W] or RGB [H, W, 3] uint8 array as RGB."""
    array = np.asarray(image, dtype=np.uint8)
    return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array


def decode(data: bytes) -> Pixels:
    """A PNG as uint8 [H, W, 3], RGB.

    What `encode` wrote takes the short way: inflate, and drop the filter byte of each row. Anything else that is
    a PNG goes through Pillow.

    Raises:
        ValueError: it is no PNG.
    """
    start = len(_SIGNATURE) + 8
    if data[:start] == _SIGNATURE + struct.pack(">I4s", 13, b"IHDR"):
        width, height, *form = struct.unpack_from(">IIBBBBB", data, start)
        body = start + 13 + 4
        length, kind = struct.unpack_from(">I4s", data, body)
        if form == [8, 2, 0, 0, 0] and kind == b"IDAT" and data[body + 12 + length + 4 :].startswith(b"IEND"):
            rows = np.frombuffer(zlib.decompress(data[body + 8 : body + 8 + length]), dtype=np.uint8)
            rows = rows.reshape(height, 1 + 3 * width)
            if not rows[:, 0].any():
                return rows[:, 1:].reshape(height, width, 3)
    return _by_pillow(data)


def _by_pillow(data: bytes) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no PNG: {error}") from None
