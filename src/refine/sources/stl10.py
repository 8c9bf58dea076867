"""`stl10`: the labeled images of STL-10, 96x96 RGB, ten classes.

5,000 training and 8,000 test images, from the authors' archive (2.6 GB, mostly unlabeled images that are not used), or
from a mirror with `stl10_binary.tar.gz`. It is read once for the labels and once for each split, one of which at a time
is held in memory (up to 221 MB).

Source: A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single Layer Networks in Unsupervised Feature Learning", 2011. Mean
and standard deviation of the training images as many projects on GitHub have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refine.core.errors import UserError
from refine.core.params import Section
from refine.download.archives import contents
from refine.download.fetch import Remote
from refine.download.source import Source, Splits
from refine.shards.writer import Sample

SIDE = 96
FOLDER = "stl10_binary"
ARCHIVE = Remote(
    name="stl10_binary.tar.gz",
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    size=2_640_397_119,
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    sha256="f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
)
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


class Params(Section):
    """STL-10 has no settings."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the files.

    Raises:
        UserError: the archive can neither be found nor downloaded, or is not the published one.
    """
    del params
    archive = source.fetch(ARCHIVE)
    files = contents(archive, {f"{FOLDER}/{split}_y.bin" for split in ("train", "test")})
    labels = {split: list(files[f"{FOLDER}/{split}_y.bin"]) for split in ("train", "test")}
    return Splits(
        classes=CLASSES,
        side=SIDE,
        train=_samples(archive, "train", labels["train"]),
        test=_samples(archive, "test", labels["test"]),
        sizes=(len(labels["train"]), len(labels["test"])),
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
    )


def _samples(archive: Path, split: str, labels: list[int]) -> Iterator[Sample]:
    """Images are stored channel by channel, and each channel column by column; labels count from 1."""
    name = f"{FOLDER}/{split}_X.bin"
    images = np.frombuffer(contents(archive, {name})[name], dtype=np.uint8)
    if images.size != len(labels) * 3 * SIDE * SIDE:
        raise UserError(f"{name} in {archive} does not hold {len(labels)} images; download it again")
    for key, image in enumerate(images.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)):
        yield Sample(key, image, labels[key] - 1, {"source_index": key, "file": f"{name}:{key}"})
