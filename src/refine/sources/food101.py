"""`food101`: photographs of 101 dishes, a thousand of each.

75,750 training images, some of them with wrong labels, and 25,250 test images, from the authors' archive (5 GB), or
from a mirror with `food-101.tar.gz`. It is read once for the lists of images and once for each split, image by image.

Source: L. Bossard, M. Guillaumin, L. Van Gool, "Food-101: Mining Discriminative Components with Random Forests", 2014.
Mean and standard deviation are those of ImageNet.
"""

from __future__ import annotations

import json
from pathlib import Path

from refine.core.errors import UserError
from refine.download import imagenet
from refine.download.archives import contents, photos
from refine.download.fetch import Remote
from refine.download.source import Source, Splits

FOLDER = "food-101"
ARCHIVE = Remote(
    name="food-101.tar.gz",
    url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
    size=4_996_278_331,
    md5="85eeb15f3717b99a5da872d97d918f87",
    sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
)


class Params(imagenet.LikeImageNet):
    """How the photographs become squares is all that can be set."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the archive.

    Raises:
        UserError: the archive can neither be found nor downloaded, or is not the published one.
    """
    archive = source.fetch(ARCHIVE)
    lists = contents(archive, {f"{FOLDER}/meta/{split}.json" for split in ("train", "test")})
    train, test = (json.loads(lists[f"{FOLDER}/meta/{split}.json"]) for split in ("train", "test"))
    classes = sorted(train)
    if sorted(test) != classes:
        raise UserError(f"{archive} lists other classes for training than for the test; download it again")
    labels = [_labels(part, classes) for part in (train, test)]
    return Splits(
        classes=[name.replace("_", " ") for name in classes],
        side=params.side,
        train=photos(archive, labels[0], params),
        test=photos(archive, labels[1], params),
        sizes=(len(labels[0]), len(labels[1])),
        mean=imagenet.MEAN,
        std=imagenet.STD,
    )


def _labels(listed: dict[str, list[str]], classes: list[str]) -> dict[str, int]:
    """Labels of the images of a split, by their names in the archive."""
    return {
        str(Path(FOLDER, "images", f"{image}.jpg")): classes.index(name)
        for name, images in listed.items()
        for image in images
    }
