"""PNG files whose bytes do not depend on the machine.

Pillow compresses with the zlib it is built with, and zlib and zlib-ng produce different bytes. Here pixels are stored
uncompressed, in "stored" deflate blocks, whose bytes are fully determined by the standards (RFC 1950, 1951, 2083).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from refine.shards.format.foreign import Pixels, opened

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STORED_BLOCK = 65535


def encode(image: Pixels) -> bytes:
    """Encodes an RGB image as PNG.

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
    """Converts a gray [H, W] or RGB [H, W, 3] uint8 array to RGB."""
    array = np.asarray(image, dtype=np.uint8)
    return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array


def decode(data: bytes, side: int) -> Pixels:
    """Decodes a PNG of known height and width to uint8 [side, side, 3], RGB.

    Files written by `encode` are inflated directly; other PNG files are decoded by Pillow. Neither way allocates more
    memory than an image of this size needs.

    Raises:
        ValueError: the data are not a PNG, or have another size.
    """
    start = len(_SIGNATURE) + 8
    if data[:start] != _SIGNATURE + struct.pack(">I4s", 13, b"IHDR"):
        raise ValueError("not a PNG")
    width, height, *form = struct.unpack_from(">IIBBBBB", data, start)
    if (width, height) != (side, side):
        raise ValueError(f"{width}x{height} pixels, not {side}")
    body = start + 13 + 4
    length, kind = struct.unpack_from(">I4s", data, body)
    if form == [8, 2, 0, 0, 0] and kind == b"IDAT" and data[body + 12 + length + 4 :].startswith(b"IEND"):
        rows = np.frombuffer(_inflated(data[body + 8 : body + 8 + length], side * (1 + 3 * side)), dtype=np.uint8)
        rows = rows.reshape(side, 1 + 3 * side)
        if not rows[:, 0].any():
            return rows[:, 1:].reshape(side, side, 3)
    with opened(data, ("PNG",)) as image:
        if image.size != (side, side):  # Pillow uses the last header if there are two
            raise ValueError(f"{image.width}x{image.height} pixels, not {side}")
        return np.asarray(image.convert("RGB"))


def _inflated(stream: bytes, size: int) -> bytes:
    """Inflates a zlib stream that must hold exactly `size` bytes."""
    inflating = zlib.decompressobj()
    data = inflating.decompress(stream, size + 1)
    if len(data) != size or not inflating.eof:
        raise ValueError(f"pixel data are not {size} bytes")
    return data


def decode_all(data: bytes, places: list[tuple[int, int]], side: int) -> Pixels | None:
    """Decodes many images written by `encode` at once.

    Such files have the same bytes around their pixels, except for checksums, which are not compared here: the caller
    has checked the SHA-256 of the whole file.

    Args:
        data: content of a file that contains the images.
        places: start and size of each image in it.
        side: height and width of all images.

    Returns:
        uint8 [N, side, side, 3], or None if any image was not written by `encode`.
    """
    frame = np.frombuffer(encode(np.zeros((side, side, 3), dtype=np.uint8)), dtype=np.uint8)
    if any(size != len(frame) for _, size in places):
        return None
    files = np.empty((len(places), len(frame)), dtype=np.uint8)
    whole = np.frombuffer(data, dtype=np.uint8)
    for row, (start, size) in enumerate(places):
        files[row] = whole[start : start + size]
    parts = list(_stored_parts(side * (1 + 3 * side)))
    around = np.ones(len(frame), dtype=bool)
    for part in parts:
        around[part] = False
    around[parts[-1].stop : parts[-1].stop + 8] = False  # Adler-32 of the pixels, CRC-32 of the chunk
    rows = np.concatenate([files[:, part] for part in parts], axis=1) if len(parts) > 1 else files[:, parts[0]]
    rows = rows.reshape(len(places), side, 1 + 3 * side)
    if not (files[:, around] == frame[around]).all() or rows[:, :, 0].any():
        return None
    return rows[:, :, 1:].reshape(len(places), side, side, 3)


def _stored_parts(size: int) -> Iterator[slice]:
    """Slices of the stored blocks, `size` bytes in total, in a file written by `encode`."""
    place = len(_SIGNATURE) + 25 + 8 + 2
    for start in range(0, size, _STORED_BLOCK):
        length = min(_STORED_BLOCK, size - start)
        yield slice(place + 5, place + 5 + length)
        place += 5 + length
