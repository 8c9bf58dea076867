"""`svhn`: the house numbers of SVHN as cropped digits, 32x32 RGB, ten classes.

73,257 training and 26,032 test images, from the authors' two files `train_32x32.mat` and `test_32x32.mat`, or from a
mirror with them. One of them at a time is held in memory (225 MB). The authors write the digit 0 as label 10.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011. Mean and standard
deviation of the training images as many projects on GitHub have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refine.core.errors import UserError
from refine.core.params import Section
from refine.download.fetch import Remote
from refine.download.source import Source, Splits
from refine.shards.writer import Sample

SIDE = 32
TRAIN = Remote(
    name="train_32x32.mat",
    url="http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
    size=182_040_794,
    md5="e26dedcc434d2e4c54c9b2d4a06d8373",
    sha256="435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
)
TEST = Remote(
    name="test_32x32.mat",
    url="http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
    size=64_275_384,
    md5="eb5a983be6a315427106f1b164d9cef3",
    sha256="cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
)


class Params(Section):
    """SVHN has no settings."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the files.

    Raises:
        UserError: a file can neither be found nor downloaded, or is not the published one.
    """
    del params
    train, test = source.fetch(TRAIN), source.fetch(TEST)
    return Splits(
        classes=[str(digit) for digit in range(10)],
        side=SIDE,
        train=_samples(train),
        test=_samples(test),
        sizes=(73_257, 26_032),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
    )


def _samples(path: Path) -> Iterator[Sample]:
    from scipy.io import loadmat

    content = loadmat(path, variable_names=["X", "y"])
    images, labels = content.get("X"), np.ravel(content.get("y", ()))
    if images is None or images.shape != (SIDE, SIDE, 3, len(labels)) or images.dtype != np.uint8:
        raise UserError(f"{path} does not hold images of {SIDE} x {SIDE} pixels with labels; download it again")
    for key, label in enumerate(labels.tolist()):
        yield Sample(key, images[:, :, :, key], int(label) % 10, {"source_index": key, "file": f"{path.name}:{key}"})
