"""How an image of any size becomes the square input of a classifier, as torchvision and timm do it.

The steps are those of torchvision's `Resize` and `CenterCrop` on Pillow's images, pixel for pixel, so that a classifier
trained with these libraries sees what it was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from refine.core.bounds import LARGEST_SIDE, Side
from refine.core.strict import Strict
from refine.shards.format.foreign import MOST_PIXELS, Pixels, read_as

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


class Preparation(Strict):
    """Attributes:
    resize: length in pixels to which the shorter side is resized first; None: the image keeps its size.
    crop: height and width of the square that is then taken from the middle; where the image is smaller, it is padded
        with black, as torchvision does.
    interpolation: of the resizing, which is antialiased (except `nearest`).
    keep_aspect: whether height and width are resized by the same factor. If not, both become `resize` pixels.
    """

    resize: Annotated[int, Field(ge=1, le=2 * LARGEST_SIDE)] | None
    crop: Side
    interpolation: Interpolation = "bilinear"
    keep_aspect: bool = True

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.resize is None and not self.keep_aspect:
            raise ValueError("without resize, the aspect ratio is kept; set resize or leave out keep_aspect")
        return self


def read(file: Path, preparation: Preparation, content: bytes | None = None) -> Pixels:
    """Reads an image file as RGB, uint8 [crop, crop, 3]; its formats and bounds are those of `foreign.opened`.

    The EXIF orientation is applied, and transparent pixels are laid on white.

    Args:
        file: the path.
        preparation: how its image becomes the square.
        content: of the file, if it lies in an archive; the path is then only its name.

    Raises:
        UserError: the file cannot be read as an image, or is so long and thin that it would fill the memory.
    """
    return read_as(file, lambda upright: _shaped(_on_white(upright), preparation), content)


def prepared(image: Image.Image, preparation: Preparation) -> Pixels:
    """Prepares an upright image in any of Pillow's modes with 8 bits per channel, to RGB, uint8 [crop, crop, 3].

    Raises:
        ValueError: the image is so long and thin that it would fill the memory.
    """
    return np.asarray(_shaped(_on_white(image), preparation))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    colors = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(colors, mask=colors)
    return white


def _shaped(image: Image.Image, preparation: Preparation) -> Image.Image:
    if preparation.resize is not None:
        size = _size(image.width, image.height, preparation.resize, preparation.keep_aspect)
        image = image.resize(size, Image.Resampling[preparation.interpolation.upper()])
    side = preparation.crop
    left, top = (_start(length, side) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _size(width: int, height: int, resize: int, keep_aspect: bool) -> tuple[int, int]:
    """Width and height after resizing.

    Raises:
        ValueError: that is more than `MOST_PIXELS`, as for a line of one pixel's width.
    """
    if not keep_aspect:
        return resize, resize
    longer = resize * max(width, height) // min(width, height)
    if resize * longer > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels are too long and thin: resized, it has more than {MOST_PIXELS:,}")
    return (resize, longer) if width <= height else (longer, resize)


def _start(length: int, side: int) -> int:
    """Where the middle part begins, rounded as torchvision does; negative for the padding of a shorter image."""
    return round((length - side) / 2) if length >= side else -((side - length) // 2)
