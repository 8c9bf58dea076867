"""A training set with one more field for each sample, which no shard contains."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from refine.training.order import Columns, Part
from refine.training.training_set import TrainingSet


class Labeled:
    """A `TrainingSet` whose last field is a given label.

    Args:
        images: of any kind.
        labels: int64 [N] on the CPU, in the order of the shards.
    """

    def __init__(self, images: TrainingSet, labels: Tensor) -> None:
        self.side = images.side
        self.sizes = images.sizes
        self.memory = images.memory
        self._images = images
        self._labels = labels
        self._starts = [0, *accumulate(images.sizes)]

    def subset(self, selected: Tensor) -> Labeled:
        return Labeled(self._images.subset(selected), self._labels[selected])

    def blocks(self, parts: list[Part]) -> Iterator[Columns]:
        for part, block in zip(parts, self._images.blocks(parts), strict=True):
            start = self._starts[part.number]
            yield *block, self._labels[start + part.start : start + part.stop]

    def delivered(self, columns: Columns, device: torch.device) -> Columns:
        *own, labels = columns
        return *self._images.delivered(tuple(own), device), labels.to(device)
