"""`folder`: the user's own images in `data/own/images`, as `train/CLASS/*` and `test/CLASS/*` (or `val/CLASS/*`).

Every format that Pillow reads with 8 bits in a channel; grey, palette and transparent images become RGB, EXIF
orientation is applied, and every image is resized to the stated side. Classes are the folder names, sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from refine.data.format.png import Pixels
from refine.data.format.writer import Sample
from refine.data.source import Source, Splits
from refine.params.reading import Section
from refine.system.errors import UserError
from refine.system.files import inside


class Params(Section):
    """Attributes:
    path: folder of the images, inside `data/own/images`.
    side: height and width in pixels that every image is resized to (bilinear, antialiased, aspect not kept).
    """

    path: str = "data/own/images"
    side: Annotated[int, Field(ge=16, le=1024)] = 64


def open_source(params: Params, source: Source) -> Splits:
    """The images, sorted by class and file name.

    Raises:
        UserError: the path lies elsewhere, a split or class is missing or empty, or a file is no image.
    """
    root = inside(source.own_images, params.path)
    train = _listed(root, ("train",))
    test = _listed(root, ("test", "val"))
    classes = sorted(train)
    if sorted(test) != classes:
        odd = min(set(train) ^ set(test))
        raise UserError(f"class {odd} is in only one of the splits of {root}; give every class images in both")
    return Splits(
        classes=classes,
        side=params.side,
        train=_samples(root, train, params.side),
        test=_samples(root, test, params.side),
        sizes=(sum(map(len, train.values())), sum(map(len, test.values()))),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _listed(root: Path, names: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of each class of a split."""
    present = [root / name for name in names if (root / name).is_dir()]
    if len(present) != 1:
        found = "both are there, keep one" if present else "put one folder for each class there"
        raise UserError(f"{root} needs a folder {' or '.join(names)}; {found}")
    split = present[0]
    classes = {}
    for folder in sorted(path for path in split.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        if not files:
            raise UserError(f"class {folder} holds no images; fill it or remove it")
        classes[folder.name] = files
    if len(classes) < 2:
        raise UserError(f"{split} holds {len(classes)} class folders; a classifier needs two or more")
    return classes


def _samples(root: Path, classes: dict[str, list[Path]], side: int) -> Iterator[Sample]:
    key = 0
    for label, files in enumerate(classes.values()):
        for path in files:
            yield Sample(key, _opened(path, side), label, {"source_index": key, "file": str(path.relative_to(root))})
            key += 1


def _opened(path: Path, side: int) -> Pixels:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                told = f"more than 8 bits in a channel, Pillow's mode {image.mode}, would be cut off"
                raise ValueError(told)  # noqa: TRY301 (the sentence below names the file)
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(upright.resize((side, side), Image.Resampling.BILINEAR))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace it or remove it") from None
