"""Our PNG files hold the pixels they were given, and every byte of them is laid down by the standard."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from refine.shards.format import png
from refine.shards.format.foreign import Pixels
from refine.shards.format.png import as_pixels, encode
from support import png_of

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
GOLDEN = "844d555b3d21bca334952d4999bbd19ec9bdb90337058c6581555071d07a59b9"

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


def random_image(height: int, width: int, seed: int = 0) -> Pixels:
    """An image of independent random pixels."""
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of every chunk; lengths and sums are checked."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (message,) = struct.unpack_from(">I", png, at + 8 + length)
        assert message == zlib.crc32(kind + content)
        found.append((kind, content))
        at += 12 + length
    return found


def block_types(stream: bytes) -> list[int]:
    """The type of each deflate block of a zlib stream, up to the first that is not stored (type 0)."""
    types, at, last = [], 2, False
    while not last:
        last, kind = bool(stream[at] & 1), stream[at] >> 1 & 3
        types.append(kind)
        if kind != 0:
            return types
        length, inverse = struct.unpack_from("<HH", stream, at + 1)
        assert length == inverse ^ 0xFFFF
        at += 5 + length
    assert at == len(stream) - 4
    return types


def decoded_by_pillow(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def decoded_by_torchvision(png: bytes) -> Pixels:
    data = torch.frombuffer(bytearray(png), dtype=torch.uint8)
    array: Pixels = decode_image(data, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return array


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_two_decoders_give_back_the_pixels(size: tuple[int, int], seed: int) -> None:
    image = random_image(*size, seed)
    png = encode(image)
    assert np.array_equal(decoded_by_pillow(png), image)
    assert np.array_equal(decoded_by_torchvision(png), image)


# a stored block holds 65,535 bytes, which 15 rows of 1 + 3 * 1456 bytes fill exactly
@pytest.mark.parametrize(
    ("height", "width", "blocks"), [(32, 32, 1), (15, 1456, 1), (16, 1456, 2), (65535, 1, 4), (224, 224, 3)]
)
def test_images_larger_than_a_block_span_as_many_as_they_need(height: int, width: int, blocks: int) -> None:
    image = random_image(height, width)
    png = encode(image)
    (_, data) = chunks(png)[1]
    assert block_types(data) == [0] * blocks
    assert len(data) == 2 + 5 * blocks + height * (1 + 3 * width) + 4
    assert np.array_equal(decoded_by_pillow(png), image)
    assert np.array_equal(decoded_by_torchvision(png), image)


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_no_block_is_compressed(size: tuple[int, int]) -> None:
    for image in (random_image(*size), np.zeros((*size, 3), dtype=np.uint8)):
        kinds = [kind for kind, _ in chunks(encode(image))]
        assert kinds == [b"IHDR", b"IDAT", b"IEND"]
        assert set(block_types(chunks(encode(image))[1][1])) == {0}


def test_the_parser_of_these_tests_knows_a_compressed_block() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    data = dict(chunks(buffer.getvalue()))[b"IDAT"]
    assert block_types(data)[0] in (1, 2)


def test_the_bytes_of_one_picture_are_these() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert hashlib.sha256(encode(image)).hexdigest() == GOLDEN


def test_an_image_that_does_not_lie_in_memory_in_order_is_encoded_alike() -> None:
    image = random_image(6, 7)
    transposed = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert not transposed.flags.c_contiguous
    assert encode(transposed) == encode(image)


def test_a_gray_image_is_repeated_in_three_channels() -> None:
    gray = random_image(5, 6)[:, :, 0]
    rgb = as_pixels(gray)
    assert rgb.shape == (5, 6, 3)
    assert all(np.array_equal(rgb[:, :, channel], gray) for channel in range(3))


def test_an_rgb_image_stays_as_it_is() -> None:
    image = random_image(5, 6)
    assert np.array_equal(as_pixels(image), image)


def _together(files: list[bytes], side: int) -> Any:
    """Decodes files that lie behind each other, with something between them."""
    data, places = b"", []
    for file in files:
        data += b"between"
        places.append((len(data), len(file)))
        data += file
    return png.decode_all(data, places, side)


@pytest.mark.parametrize("side", [1, 16, 32, 33, 147, 148, 224])
def test_images_decoded_together_are_those_decoded_alone(side: int) -> None:
    images = np.random.RandomState(side).randint(0, 256, (4, side, side, 3)).astype(np.uint8)
    assert np.array_equal(_together([png.encode(image) for image in images], side), images)


@pytest.mark.parametrize("side", [16, 148])
def test_images_with_anything_else_around_their_pixels_are_not_decoded_together(side: int) -> None:
    file = png.encode(np.full((side, side, 3), 7, dtype=np.uint8))
    parts = list(png._stored_parts(side * (1 + 3 * side)))
    pixels = {place for part in parts for place in range(part.start, part.stop)}
    sums = set(range(parts[-1].stop, parts[-1].stop + 8))
    row = 1 + 3 * side
    filters = [[place for part in parts for place in range(part.start, part.stop)][number * row] for number in (0, 3)]
    for place in [*sorted(set(range(len(file))) - pixels - sums), *filters]:
        changed = bytearray(file)
        changed[place] ^= 1
        assert _together([file, bytes(changed)], side) is None, place
    assert _together([file, file[:-1]], side) is None
    assert _together([file], side + 1) is None


HEADER = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
ROWS = zlib.compress((b"\0" + bytes(24)) * 8)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "RGB"])
def test_an_image_of_another_program_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(random_image(8, 8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(png.decode(buffer.getvalue(), 8), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [(b"IHDR", HEADER), (b"IDAT", zlib.compress(bytes(200) + b"x")), (b"IEND", b"")],
            "pixel data are not 200 bytes",
        ),
        ([(b"IHDR", HEADER), (b"IDAT", zlib.compress(bytes(199))), (b"IEND", b"")], "pixel data are not 200 bytes"),
        ([(b"IHDR", HEADER), (b"IDAT", ROWS[:-4]), (b"IEND", b"")], "pixel data are not 200 bytes"),
        ([(b"IHDR", HEADER.replace(b"\x08", b"\x09")), (b"IDAT", ROWS), (b"IEND", b"")], "9x9 pixels, not 8"),
        (
            [(b"IHDR", HEADER), (b"IHDR", struct.pack(">II", 10**9, 10**9) + HEADER[8:]), (b"IDAT", ROWS)],
            "DecompressionBombError",
        ),
        (
            [(b"IHDR", HEADER), (b"IHDR", struct.pack(">II", 99, 99) + HEADER[8:]), (b"IDAT", ROWS)],
            "99x99 pixels, not 8",
        ),
        ([(b"IHDR", HEADER[:8] + b"\x10" + HEADER[9:]), (b"IDAT", ROWS)], "more than 8 bits per channel"),
        ([(b"IDAT", ROWS)], "not a PNG"),
    ],
    ids=["long", "short", "cut", "other side", "bomb behind the header", "other header behind it", "deep", "no header"],
)
def test_an_unexpected_png_is_refused(parts: list[tuple[bytes, bytes]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        png.decode(png_of(*parts), 8)
