"""`cifar10_dev`: only the training images of CIFAR-10, of which 500 per class are held out as a test split.

Use it to choose recipes, so that the real test images stay unseen until a recipe is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from refine.core.params import Section, Seed
from refine.download import cifar
from refine.download.source import Source, Splits, drawn_by_class
from refine.shards.writer import Sample

HELD_OUT_PER_CLASS = 500


class Params(Section):
    """Attributes:
    split_seed: seed of the draw of the 500 held-out images of each class.
    """

    split_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; the images of each split are in the order of the batch files.

    Raises:
        UserError: the files can neither be found nor downloaded, or are not the published ones.
    """
    images = list(cifar.samples(cifar.read(source), cifar.TRAIN))
    labels = np.array([image.label for image in images])
    held_out = drawn_by_class(labels, HELD_OUT_PER_CLASS, params.split_seed)

    def numbered(rows: np.ndarray) -> Iterator[Sample]:
        return (replace(images[row], key=key) for key, row in enumerate(np.flatnonzero(rows)))

    return cifar.splits(numbered(~held_out), numbered(held_out), (int((~held_out).sum()), int(held_out.sum())))
