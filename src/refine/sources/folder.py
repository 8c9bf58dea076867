"""`folder`: the user's own images in `data/own/images`, as `train/CLASS/*` and `test/CLASS/*` (or `val/CLASS/*`).

Images may have the formats of `shards/format/foreign.py` with 8 bits per channel. Gray and palette images are converted
to RGB, EXIF orientation is applied, and every image is made to fit the given side. Transparent pixels are laid on
white, except with the default fit (`squash`, `bilinear`), where they keep the color that the file has for them.

Classes are the folder names, sorted. Hidden files (`.name`) are ignored; any other file in the folder of a class must
be an image. For links, see `download/own_images.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from refine.core.bounds import MOST_CLASSES
from refine.core.errors import UserError
from refine.core.files import inside
from refine.download.fitting import Fitted
from refine.download.own_images import entries, refuse_link, samples
from refine.download.source import Source, Splits


class Params(Fitted):
    """Attributes:
    path: folder with the images, inside `data/own/images`.
    """

    path: str = "data/own/images"


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by class and file name.

    Raises:
        UserError: the path is outside `data/own/images`, a split or class is missing or empty, or a file is no image.
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
        train=samples(root, _labeled(train), params),
        test=samples(root, _labeled(test), params),
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
    refuse_link(split)
    classes = {folder.name: _files(folder) for folder in _entries(split, folders=True)}
    if len(classes) < 2:
        raise UserError(f"{split} holds {len(classes)} class folders; a classifier needs two or more")
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{split} holds {len(classes)} class folders, more than {MOST_CLASSES:,}; take fewer")
    return classes


def _files(folder: Path) -> list[Path]:
    """The images of a class."""
    files = _entries(folder, folders=False)
    if not files:
        raise UserError(f"class {folder} holds no images; fill it or remove it")
    return files


def _entries(folder: Path, folders: bool) -> list[Path]:
    """Lists a folder that must hold only folders, or only files and links to files; see `own_images.entries`.

    Raises:
        UserError: it holds something else, or something that DVC cannot track.
    """
    found = entries(folder)
    for path in found:
        if path.is_dir() != folders:
            problem = "lies beside the folders of the classes" if folders else "is a folder inside a class"
            raise UserError(f"{path} {problem}, where it is not read; move its images into the folder of a class")
    return found


def _labeled(classes: dict[str, list[Path]]) -> Iterator[tuple[Path, int]]:
    return ((path, label) for label, files in enumerate(classes.values()) for path in files)
