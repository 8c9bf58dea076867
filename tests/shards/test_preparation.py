"""Images become the input of a classifier exactly as torchvision's transforms make it of Pillow's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from refine.core.errors import UserError
from refine.shards.format import foreign
from refine.shards.format.preparation import Interpolation, Preparation, prepared, read

ORIENTATION = 0x0112


def noise(width: int, height: int) -> Image.Image:
    """Random pixels, in which every shift by one pixel shows."""
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_pixels_are_those_of_torchvision(interpolation: Interpolation) -> None:
    for width, height in ((50, 37), (37, 50), (33, 97), (20, 20), (24, 24), (7, 90), (25, 26)):
        for resize, crop in ((24, 20), (24, 24), (25, 20), (20, 27), (100, 17)):
            library = Compose([Resize(resize, InterpolationMode(interpolation)), CenterCrop(crop)])
            ours = prepared(noise(width, height), Preparation(resize=resize, crop=crop, interpolation=interpolation))
            assert ours.dtype == np.uint8
            assert np.array_equal(ours, np.asarray(library(noise(width, height)))), (width, height, resize, crop)


@pytest.mark.parametrize(("width", "height"), [(50, 37), (10, 50), (33, 7), (9, 4)])
def test_without_resizing_the_middle_is_taken_and_small_images_are_padded(width: int, height: int) -> None:
    ours = prepared(noise(width, height), Preparation(resize=None, crop=21))
    assert np.array_equal(ours, np.asarray(CenterCrop(21)(noise(width, height))))


def test_the_aspect_ratio_need_not_be_kept() -> None:
    ours = prepared(noise(50, 20), Preparation(resize=24, crop=20, keep_aspect=False))
    assert np.array_equal(ours, np.asarray(CenterCrop(20)(Resize((24, 24))(noise(50, 20)))))


def test_a_file_is_turned_upright_first(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    noise(50, 30).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    form = Preparation(resize=24, crop=20)
    assert np.array_equal(read(tmp_path / "turned.png", form), prepared(noise(50, 30), form))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_are_laid_on_white(tmp_path: Path, mode: str) -> None:
    image, settings = Image.new("RGBA", (20, 20), (0, 0, 0, 0)), {}
    ImageDraw.Draw(image).rectangle((10, 0, 19, 19), fill=(51, 51, 51, 255))
    if mode in ("P", "RGB", "L"):
        image, settings = image.convert("RGB").convert(mode), {"transparency": (0, 0, 0) if mode == "RGB" else 0}
        if mode == "P":
            settings = {"transparency": image.getpixel((0, 0))}
    image.convert(mode).save(tmp_path / "clear.png", **settings)
    found = read(tmp_path / "clear.png", Preparation(resize=None, crop=20))
    assert (found[:, :10] == 255).all()
    assert (found[:, 10:] == 51).all()


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    found = prepared(Image.new("RGBA", (4, 4), (0, 100, 255, 51)), Preparation(resize=None, crop=4))
    assert np.abs(found.astype(int) - (204, 224, 255)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    found = prepared(Image.new("L", (30, 20), 255).convert(mode), Preparation(resize=16, crop=16))
    assert found.shape == (16, 16, 3)
    assert (found == 255).all()


def test_an_image_that_would_become_too_large_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(1, 3000).save(tmp_path / "line.png")
    assert read(tmp_path / "line.png", Preparation(resize=None, crop=16)).shape == (16, 16, 3)
    with pytest.raises(UserError, match=r"line\.png cannot be read as an image \(1x3000 pixels are too long and thin"):
        read(tmp_path / "line.png", Preparation(resize=256, crop=224))
    (tmp_path / "line.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"line\.png cannot be read as an image \(not an image in one of the formats"):
        read(tmp_path / "line.png", Preparation(resize=256, crop=224))
    monkeypatch.setattr(foreign, "MOST_PIXELS", 99)
    noise(10, 10).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="more than 99 pixels"):
        read(tmp_path / "large.png", Preparation(resize=16, crop=16))


@pytest.mark.parametrize(
    "content",
    [
        {"resize": 0, "crop": 16},
        {"resize": 10**6, "crop": 16},
        {"resize": 16, "crop": 0},
        {"resize": 16},
        {"resize": None, "crop": 16, "keep_aspect": False},
        {"resize": 16, "crop": 16, "interpolation": "box"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(content: object) -> None:
    with pytest.raises(ValueError, match="Preparation"):
        Preparation.model_validate(content)
