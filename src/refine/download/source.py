"""The interface of data sources.

A source is a module in `refine.sources` with a class `Params` and a function `open_source(params, source)` that returns
`Splits`, or `Elsewhere` where the images stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refine.download.fetch import Remote, fetch
from refine.shards.format.preparation import Preparation
from refine.shards.writer import Sample


@dataclass(frozen=True)
class Source:
    """What a data source may use.

    Attributes:
        mirror: folder or URL to take files from instead of their official URL (`REFINE_MIRROR`).
        own_images: folder for the user's own images, tracked by DVC; a source reads no other file of the project.
        cache: folder for downloads that are kept after the run; ignored by git and DVC.
    """

    mirror: str | None
    own_images: Path
    cache: Path

    def fetch(self, remote: Remote) -> Path:
        """Downloads a published file, from the mirror or its official URL; see `download.fetch`."""
        return fetch(remote, self.mirror, self.cache)


@dataclass(frozen=True)
class Splits:
    """A data set with a training and a test split.

    Attributes:
        classes: names, in the order of the labels.
        side: height and width of every image, in pixels.
        train: samples of the training split; keys count from 0.
        test: samples of the test split; keys count from 0.
        sizes: numbers of training and of test samples.
        mean: of each channel, for pixels in [0, 1], as published for the data set; classifiers normalize by it.
        std: likewise.
        labeled: whether the labels of the samples mean anything.
        test_labeled: the same of test samples alone; None if it is so for both.
    """

    classes: list[str]
    side: int
    train: Iterator[Sample]
    test: Iterator[Sample]
    sizes: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labeled: bool = True
    test_labeled: bool | None = None


@dataclass(frozen=True)
class Elsewhere:
    """A data set of shards that stay where they are, in the usual form of webdataset.

    Attributes:
        classes: names, in the order of the labels; None: the labels themselves are the names.
        train: addresses of the shards of the training split.
        test: likewise, of the test split.
        preparation: how each image becomes a square.
        mean: as of `Splits`.
        std: as of `Splits`.
        labeled: whether the samples have labels.
    """

    classes: list[str] | None
    train: list[str]
    test: list[str]
    preparation: Preparation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labeled: bool = True


def drawn_by_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws `count` samples of each class uniformly, or all if a class has fewer.

    Args:
        labels: int [N].
        count: samples to draw from each class.
        seed: of the draw.

    Returns:
        Mask of the drawn samples, bool [N].
    """
    random = np.random.RandomState(seed)
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        drawn[random.permutation(np.flatnonzero(labels == label))[:count]] = True
    return drawn
