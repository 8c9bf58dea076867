"""`imagenet50`: some classes of the user's own copy of ImageNet, 224x224.

The REFINE paper has results for fifty classes with 500 training and 100 test images each, but does not publish which.
The classes are therefore settings; by default, they are fifty at even steps of those in the folder, in the order of
their numbers in WordNet. ImageNet has only 50 validation images of a class, so test images are drawn from its training
images, too, and are not used for training.

Copy the folders of the classes to `data/own/images/imagenet/train/WNID`. If ImageNet's `LOC_synset_mapping.txt` lies in
`data/own/images/imagenet`, it gives the names of the classes. Mean and standard deviation are those of ImageNet.

Source: O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from refine.core.bounds import MOST_CLASSES
from refine.core.errors import UserError
from refine.core.files import inside
from refine.core.params import Seed
from refine.download import imagenet
from refine.download.own_images import entries, samples
from refine.download.source import Source, Splits
from refine.shards.format.manifest import Name

CLASSES = 50


class Params(imagenet.LikeImageNet):
    """Attributes:
    path: folder with `train/WNID/*.JPEG`, inside `data/own/images`.
    classes: numbers in WordNet, such as n01440764, in the order of the labels; by default, fifty at even steps.
    train_per_class: training images of each class.
    test_per_class: test images of each class.
    seed: of the draw of both.
    """

    path: str = "data/own/images/imagenet"
    classes: Annotated[list[Name], Field(min_length=2, max_length=MOST_CLASSES)] | None = None
    train_per_class: Annotated[int, Field(ge=1, le=100_000)] = 500
    test_per_class: Annotated[int, Field(ge=1, le=100_000)] = 100
    seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by class and name.

    Raises:
        UserError: the path is outside `data/own/images`, a class is missing, is listed twice or has too few images, or
            a file is no image.
    """
    root = inside(source.own_images, params.path)
    wnids = params.classes or _at_even_steps(root)
    if len(set(wnids)) < len(wnids):
        raise UserError("sources.imagenet50.classes names a class twice; remove one")
    train: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    random = np.random.RandomState(params.seed)
    for label, wnid in enumerate(wnids):
        files = _files(root, wnid)
        wanted = params.train_per_class + params.test_per_class
        if len(files) < wanted:
            raise UserError(
                f"{root / 'train' / wnid} holds {len(files)} of {wanted} images; add images, or lower "
                "sources.imagenet50.train_per_class or test_per_class"
            )
        drawn = random.permutation(len(files))[:wanted].tolist()
        test += [(files[row], label) for row in sorted(drawn[: params.test_per_class])]
        train += [(files[row], label) for row in sorted(drawn[params.test_per_class :])]
    return Splits(
        classes=imagenet.names(root, wnids),
        side=params.side,
        train=samples(root, train, params),
        test=samples(root, test, params),
        sizes=(len(train), len(test)),
        mean=imagenet.MEAN,
        std=imagenet.STD,
    )


def _at_even_steps(root: Path) -> list[str]:
    if not (root / "train").is_dir():
        raise UserError(f"{root} needs a folder train with one folder for each class, such as n01440764; copy it there")
    found = [folder.name for folder in entries(root / "train") if folder.is_dir()]
    if len(found) < CLASSES:
        raise UserError(
            f"{root / 'train'} holds {len(found)} of {CLASSES} class folders; add some, or list those that you have in "
            "sources.imagenet50.classes"
        )
    return [found[number * len(found) // CLASSES] for number in range(CLASSES)]


def _files(root: Path, wnid: str) -> list[Path]:
    folder = inside(root, str(root / "train" / wnid))
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; copy it there, or change sources.imagenet50.classes")
    return [path for path in entries(folder) if path.is_file()]
