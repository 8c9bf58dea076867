"""Own images of any kind become RGB of the stated side; what is wrong with a folder is said by name."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refine.core.errors import UserError
from refine.download.source import Source
from refine.shards.format import foreign
from refine.shards.format.preparation import Preparation, prepared
from refine.shards.writer import Sample
from refine.sources import folder
from support import png_of

OWN = Path("data/own/images")
SOURCE = Source(mirror=None, own_images=OWN, cache=Path("nowhere"))
QUADRANTS = ((250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 240))
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder of the test has two splits of two classes, with one small image each."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (OWN / split / name).mkdir(parents=True)
            picture().save(OWN / split / name / "1.png")


def picture(width: int = 40, height: int = 40) -> Image.Image:
    """Four colors, one in each quarter: red, green; blue, light gray."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for number, color in enumerate(QUADRANTS):
        down, across = divmod(number, 2)
        pixels[down * height // 2 : (down + 1) * height // 2, across * width // 2 : (across + 1) * width // 2] = color
    return Image.fromarray(pixels)


def opened(side: int = 16, path: str = str(OWN)) -> tuple[list[Sample], list[Sample]]:
    """All samples."""
    splits = folder.open_source(folder.Params(path=path, side=side), SOURCE)
    train, test = list(splits.train), list(splits.test)
    assert splits.sizes == (len(train), len(test))
    assert splits.side == side
    return train, test


def only(name: str) -> np.ndarray:
    """The training image of that file, which is the class cat's second."""
    (sample,) = [sample for sample in opened()[0] if sample.info["file"] == f"train/cat/{name}"]
    assert sample.image.shape == (16, 16, 3)
    assert sample.image.dtype == np.uint8
    return sample.image


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    """The colors in the middle of the four quarters."""
    return [tuple(int(value) for value in image[y, x]) for y in (4, 12) for x in (4, 12)]


def near(found: list[tuple[int, ...]], expected: object, tolerance: int) -> bool:
    """Equal but for the losses of a format."""
    return bool((np.abs(np.array(found) - np.array(expected)) <= tolerance).all())


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [("2.png", "RGB", 0), ("2.jpeg", "RGB", 12), ("2.bmp", "RGB", 0), ("2.gif", "P", 20), ("2.PNG", "RGBA", 0)],
)
def test_every_format_becomes_rgb_of_the_stated_side(name: str, mode: str, tolerance: int) -> None:
    image = picture().convert(mode, palette=Image.Palette.ADAPTIVE) if mode == "P" else picture().convert(mode)
    image.save(OWN / "train/cat" / name)
    assert near(corners(only(name)), QUADRANTS, tolerance)


def test_a_palette_with_a_transparent_color_keeps_its_colors() -> None:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(OWN / "train/cat/2.png", transparency=0)
    assert near(corners(only("2.png")), QUADRANTS, 20)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_gray_image_becomes_three_equal_channels(mode: str) -> None:
    picture().convert("L").convert(mode).save(OWN / "train/cat/2.png")
    image = only("2.png")
    assert (image == image[:, :, :1]).all()
    assert image[12, 12, 0] >= 200  # the mode of one bit dithers


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    picture().convert("CMYK").save(OWN / "train/cat/2.jpg")
    assert near(corners(only("2.jpg")), QUADRANTS, 20)


def test_an_image_that_was_taken_with_the_camera_turned_is_set_upright() -> None:
    for orientation, turned in ((6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180)):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        picture().transpose(turned).save(OWN / "train/cat/2.png", exif=exif)
        assert near(corners(only("2.png")), QUADRANTS, 0)


def test_unreadable_metadata_is_reported_with_the_name_of_the_file(
    caplog: pytest.LogCaptureFixture,
) -> None:
    picture().save(OWN / "train/cat/2.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    assert near(corners(only("2.jpg")), QUADRANTS, 12)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "data/own/images/train/cat/2.jpg can only be read in part"
    ]


def test_the_aspect_is_not_kept() -> None:
    picture(80, 20).save(OWN / "train/cat/2.png")
    assert near(corners(only("2.png")), QUADRANTS, 0)


def test_pixels_are_pillows_bilinear_ones() -> None:
    random = np.random.RandomState(0).randint(0, 256, (50, 30, 3)).astype(np.uint8)
    Image.fromarray(random).save(OWN / "train/cat/2.png")
    expected = Image.fromarray(random).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(only("2.png"), np.asarray(expected))


def test_an_image_of_the_stated_side_is_not_touched() -> None:
    random = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(random).save(OWN / "train/cat/2.png")
    assert np.array_equal(only("2.png"), random)


def test_sixteen_bits_in_a_channel_are_refused_and_not_cut_off_to_white() -> None:
    Image.fromarray(np.full((20, 20), 1000, dtype=np.uint16)).save(OWN / "train/cat/2.png")
    with pytest.raises(UserError, match=r"train/cat/2\.png cannot be read as an image \(more than 8 bits"):
        opened()


def _deep_png() -> bytes:
    """An RGB picture with 16 bits in a channel, which Pillow cannot write."""
    rows = (b"\0" + bytes(range(96))) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    return png_of((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def _deep_tiff() -> bytes:
    """An RGB picture with 16 bits in a channel, of one strip behind its ten tags."""
    end = 8 + 2 + 10 * 12 + 4
    tags = {256: 16, 257: 16, 258: end, 259: 1, 262: 2, 273: end + 6, 277: 3, 278: 16, 279: 16 * 16 * 6, 284: 1}
    entries = [struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, tags[tag]) for tag in tags]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + bytes(16 * 16 * 6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("2.png", _deep_png()),
        ("2.tif", _deep_tiff()),
        ("2.ppm", b"P6 16 16 65535\n" + bytes(16 * 16 * 6)),
        ("2.pgm", b"P5 16 16 65535\n" + bytes(16 * 16 * 2)),
    ],
)
def test_sixteen_bits_in_a_channel_are_refused_in_every_format(name: str, content: bytes) -> None:
    path = OWN / "train/cat" / name
    path.write_bytes(content)
    with Image.open(path) as image:
        image.load()  # Pillow reads it
    with pytest.raises(UserError, match=rf"train/cat/{name} cannot be read as an image \(more than 8 bits"):
        opened()


def test_formats_that_are_not_in_the_list_are_refused_before_another_program_is_started() -> None:
    (OWN / "train/cat/2.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(
        UserError, match=r"2\.eps cannot be read as an image \(not an image in one of the formats BMP, GIF"
    ):
        opened()


def test_hidden_files_are_ignored_everywhere() -> None:
    for place in ("train/.cache", "train/cat/.thumbnails", ".git"):
        (OWN / place).mkdir()
        picture().save(OWN / place / "1.png")
    (OWN / "train/cat/.DS_Store").write_text("x")
    (OWN / "train/.DS_Store").write_text("x")
    assert [sample.info["file"] for sample in opened()[0]] == ["train/cat/1.png", "train/dog/1.png"]
    assert folder.open_source(folder.Params(), SOURCE).classes == ["cat", "dog"]


@pytest.mark.parametrize("place", ["train", "test", "train/cat", "test/dog"])
@pytest.mark.parametrize("target", ["/elsewhere", "data/own/images/kept"])
def test_a_link_to_a_folder_is_refused_because_dvc_passes_over_it(tmp_path: Path, place: str, target: str) -> None:
    moved = tmp_path / target.removeprefix("/")
    moved.parent.mkdir(exist_ok=True, parents=True)
    (OWN / place).rename(moved)
    (OWN / place).symlink_to(moved)
    with pytest.raises(UserError, match=f"^data/own/images/{place} is a link to a folder, .*DVC does not notice"):
        opened()


def test_a_link_to_a_file_is_followed_as_dvc_does(tmp_path: Path) -> None:
    (OWN / "train/cat/1.png").rename(tmp_path / "elsewhere.png")
    (OWN / "train/cat/1.png").symlink_to(tmp_path / "elsewhere.png")
    assert near(corners(opened()[0][0].image), QUADRANTS, 0)


def test_files_that_would_be_skipped_are_named() -> None:
    folders, first = OWN / "train", OWN / "train/cat"
    for make, message in (
        (lambda: (first / "kittens").mkdir(), "train/cat/kittens is a folder inside a class, .*; move its images"),
        (
            lambda: (first / "a.png").symlink_to("nowhere"),
            r"train/cat/a\.png is not a file, or a broken link; remove it",
        ),
        (lambda: (first / "b.png").symlink_to("b.png"), r"train/cat/b\.png is not a file, or a broken link"),
        (lambda: (folders / "c").symlink_to("c"), r"train/c is not a file, or a broken link"),
        (lambda: os.mkfifo(first / "d.png"), r"train/cat/d\.png is not a file"),
        (lambda: picture().save(folders / "e.png"), r"train/e\.png lies beside the folders of the classes"),
    ):
        before = set(folders.rglob("*"))
        make()
        with pytest.raises(UserError, match=rf"^data/own/images/{message}"):
            opened()
        for path in set(folders.rglob("*")) - before:
            path.rmdir() if path.is_dir() else path.unlink()
    assert len(opened()[0]) == 2


@pytest.mark.parametrize("place", [b"train/cat/\xff.png", b"train/\xfe", b"test/dog/\xff\n.png"])
def test_a_name_that_is_not_utf_8_is_reported_readably(place: bytes) -> None:
    path = OWN / os.fsdecode(place)
    shutil.copy(OWN / "train/cat/1.png", path) if place.endswith(b"png") else path.mkdir()
    with pytest.raises(UserError, match=r"\\udcf[ef].* has a name that is not UTF-8") as refused:
        opened()
    assert str(refused.value).isascii()


@pytest.mark.parametrize("path", ["data/own/images/\0", "data/own/images/loop", "data/own/images/" + "x" * 5000])
def test_a_path_that_cannot_be_followed_is_refused(path: str) -> None:
    (OWN / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=r"is not a path|needs a folder train"):
        opened(path=path)


def test_samples_are_sorted_by_class_and_file_and_labeled_by_class() -> None:
    for name in ("b.png", "a.png", ".hidden.png"):
        picture().save(OWN / "train/dog" / name)
    (OWN / "train/.keep").touch()
    train, test = opened()
    found = [(sample.key, sample.label, sample.info) for sample in train]
    files = [("cat/1.png", 0), ("dog/1.png", 1), ("dog/a.png", 1), ("dog/b.png", 1)]
    assert found == [
        (key, label, {"source_index": key, "file": f"train/{file}"}) for key, (file, label) in enumerate(files)
    ]
    assert [sample.info["file"] for sample in test] == ["test/cat/1.png", "test/dog/1.png"]
    assert folder.open_source(folder.Params(), SOURCE).classes == ["cat", "dog"]


def test_the_test_images_may_lie_in_a_folder_called_val() -> None:
    (OWN / "test").rename(OWN / "val")
    assert [sample.info["file"] for sample in opened()[1]] == ["val/cat/1.png", "val/dog/1.png"]


def test_a_folder_below_may_be_chosen() -> None:
    (OWN / "pets").mkdir()
    for split in ("train", "test"):
        (OWN / split).rename(OWN / "pets" / split)
    assert len(opened(path=f"{OWN}/pets")[0]) == 2


@pytest.mark.parametrize("content", [b"no image", b"", "cut"])
def test_a_damaged_image_is_named(content: bytes | str) -> None:
    path = OWN / "train/cat/2.png"
    path.write_bytes((OWN / "train/cat/1.png").read_bytes()[:90] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"^data/own/images/train/cat/2\.png cannot be read as an image \(.*; replace"):
        opened()


def test_an_image_that_would_fill_the_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MOST_PIXELS", 40 * 40 - 1)
    with pytest.raises(
        UserError, match=r"train/cat/1\.png cannot be read as an image \(more than 1,599 pixels; make it"
    ):
        opened()
    monkeypatch.setattr(foreign, "LARGEST_FILE", 10)
    with pytest.raises(
        UserError, match=r"train/cat/1\.png cannot be read as an image \(more than 0 MiB; make it smaller"
    ):
        opened()
    monkeypatch.setattr(foreign, "LARGEST_FILE", 10**6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"train/cat/1\.png cannot be read as an image \(.*decompression bomb"):
        opened()


def test_a_class_without_images_is_named() -> None:
    (OWN / "test/dog/1.png").unlink()
    with pytest.raises(UserError, match="class data/own/images/test/dog holds no images; fill it or remove it"):
        opened()


def test_a_class_in_one_split_only_is_named() -> None:
    (OWN / "train/fox").mkdir()
    picture().save(OWN / "train/fox/1.png")
    with pytest.raises(UserError, match="class fox is in only one of the splits"):
        opened()


def test_one_class_is_too_few() -> None:
    for split in ("train", "test"):
        (OWN / split / "dog/1.png").unlink()
        (OWN / split / "dog").rmdir()
    with pytest.raises(UserError, match="train holds 1 class folders; a classifier needs two or more"):
        opened()


@pytest.mark.parametrize(("split", "message"), [("train", "needs a folder train;"), ("test", "folder test or val;")])
def test_a_missing_split_is_named(split: str, message: str) -> None:
    (OWN / split).rename(OWN / "away")
    with pytest.raises(UserError, match=message):
        opened()


def test_both_test_and_val_are_one_too_many() -> None:
    (OWN / "val").mkdir()
    with pytest.raises(UserError, match="needs a folder test or val; both are there, keep one"):
        opened()


@pytest.mark.parametrize("path", ["data/own", "data/own/images/..", "elsewhere", "/"])
def test_a_folder_that_dvc_does_not_track_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="lies outside data/own/images, where DVC cannot see it change"):
        opened(path=path)


@pytest.mark.parametrize("side", [15, 1025, 64.0, "64"])
def test_a_side_that_no_network_takes_is_refused(side: object) -> None:
    with pytest.raises(ValueError, match="side"):
        folder.Params.model_validate({"side": side})


def test_real_photographs_become_a_data_set(datasets: Path) -> None:
    real = datasets / "imagenette-224-subset"
    if not real.is_dir():
        pytest.skip("the mirror holds no imagenette-224-subset")
    splits = folder.open_source(folder.Params(path=str(real), side=64), Source(None, real, Path("nowhere")))
    assert splits.sizes == (1000, 400)
    assert len(splits.classes) == 10
    for _ in range(20):
        sample = next(splits.test)
        assert sample.image.shape == (64, 64, 3)
        assert sample.image.std() > 5
        assert sample.label == 0


def test_the_aspect_is_kept_on_request() -> None:
    picture(80, 20).save(OWN / "train/cat/2.png")
    params = folder.Params(side=16, fit="crop", resize=20, interpolation="lanczos")
    (sample,) = [s for s in folder.open_source(params, SOURCE).train if s.info["file"] == "train/cat/2.png"]
    form = Preparation(resize=20, crop=16, interpolation="lanczos")
    assert np.array_equal(sample.image, prepared(picture(80, 20), form))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"resize": 70}, "needs `fit: crop`"), ({"fit": "crop", "resize": 32, "side": 64}, "less than the side of 64")],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        folder.Params.model_validate(settings)
