"""The images that both systems are measured on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from refine.data.reader import Split
from refine.evaluation.metrics import Truth
from refine.system.errors import UserError


@dataclass(frozen=True)
class HeldOut:
    """The clean test split and its triggered part."""

    clean: Split
    triggered: Split

    @property
    def truth(self) -> Truth:
        """Labels of both, and which clean image is behind each triggered one.

        Raises:
            UserError: a triggered image has no clean one.
        """
        rows = torch.searchsorted(self.clean.keys, self.triggered.keys).clamp(max=len(self.clean.keys) - 1)
        if not torch.equal(self.clean.keys[rows], self.triggered.keys):
            raise UserError("the triggered test set belongs to another data set; run `dvc repro poison-dataset`")
        return Truth(self.clean.labels, rows, self.triggered.labels)


@dataclass(frozen=True)
class Diagnosed:
    """The images that diagnostics look at, int64 each.

    Attributes:
        benign: places in the clean split.
        triggered: places in the triggered split.
        mapped_labels: true labels of the first ones of `benign`, which are drawn on a map.
        triggered_labels: true labels of `triggered`.
    """

    benign: Tensor
    triggered: Tensor
    mapped_labels: Tensor
    triggered_labels: Tensor


def choose(truth: Truth, count: int) -> Diagnosed:
    """So many triggered images and twice as many benign ones, all classes in turn; fewer of both where one runs out."""
    count = min(count, len(truth.labels) // 2, len(truth.clean_rows) or count)
    benign = one_of_each(truth.labels, 2 * count)
    behind = truth.labels[truth.clean_rows]
    triggered = one_of_each(behind, count)
    return Diagnosed(benign, triggered, truth.labels[benign[:count]], behind[triggered])


def one_of_each(labels: Tensor, count: int) -> Tensor:
    """Places of the first image of each class, then of the second, and so on; int64 [at most count]."""
    turns: dict[int, int] = {}
    order = []
    for place, label in enumerate(labels.tolist()):
        turns[label] = turns.get(label, -1) + 1
        order.append((turns[label], label, place))
    return torch.tensor([place for _, _, place in sorted(order)[:count]], dtype=torch.int64)
