"""What a data source gets and gives.

A source is one file of `sources` with `Params` and `open_source(params, source)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refine.download.fetch import Remote, fetch
from refine.shards.writer import Sample


@dataclass(frozen=True)
class Source:
    """What the stage offers to a source.

    Attributes:
        mirror: folder or URL to take files from instead of their official address (a setting of the machine).
        own_images: tracked folder for the user's own images; a source reads no other file of the project.
        cache: folder for downloads that outlive the run; git and DVC ignore it.
    """

    mirror: str | None
    own_images: Path
    cache: Path

    def fetch(self, remote: Remote) -> Path:
        """A published file from the mirror or its official address, checked; see `download.fetch`."""
        return fetch(remote, self.mirror, self.cache)


@dataclass(frozen=True)
class Splits:
    """A data set, opened and checked.

    Attributes:
        classes: names, in the order of the labels.
        side: height and width of every image, in pixels.
        train: samples of the training split, keys from 0.
        test: samples of the test split, keys from 0.
        sizes: number of training and of test samples.
        mean: of each channel of the pixels in [0, 1], as published for the data set; classifiers normalize by it.
        std: likewise.
    """

    classes: list[str]
    side: int
    train: Iterator[Sample]
    test: Iterator[Sample]
    sizes: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def drawn_by_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Which samples are drawn, bool [N]: `count` of each class, uniformly; all where a class has no more.

    Args:
        labels: int [N].
        count: of each class.
        seed: decides which.
    """
    random = np.random.RandomState(seed)
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        drawn[random.permutation(np.flatnonzero(labels == label))[:count]] = True
    return drawn
