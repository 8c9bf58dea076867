"""The images that both systems are measured on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.evaluation.metrics import Truth
from refine.shards.reading.folder import complete
from refine.shards.reading.reader import Split, read_split
from refine.shards.reading.stored import StoredSplit, open_split

log = logging.getLogger(__name__)

_SEED = 1
"""Of the halves: one for all runs, so that runs on the same data set look at the same images and compare."""

MOST = 512
"""MiB of test images that are held in memory."""

AnySplit = Split | StoredSplit


@dataclass(frozen=True)
class TestSets:
    """The clean test split and its triggered part, in memory or on disk."""

    clean: AnySplit
    triggered: AnySplit

    @property
    def truth(self) -> Truth:
        """Labels of both, and which clean image is behind each triggered one.

        Raises:
            UserError: there is no clean image, a triggered one has none, or the images have no labels.
        """
        self.clean.manifest.refuse_unlabeled(Path("data/raw/test"), "Measuring accuracy")
        if not len(self.clean.keys):
            raise UserError("the clean test set holds no image to measure; run `dvc repro download`")
        rows = torch.searchsorted(self.clean.keys, self.triggered.keys).clamp(max=len(self.clean.keys) - 1)
        of = [(split.manifest.classes, split.manifest.side) for split in (self.clean, self.triggered)]
        if of[0] != of[1] or not torch.equal(self.clean.keys[rows], self.triggered.keys):
            raise UserError("the triggered test set belongs to another data set; run `dvc repro poison-dataset`")
        return Truth(self.clean.labels, rows, self.triggered.labels)

    def some(self, count: int, seed: int) -> TestSets:
        """So many clean images, drawn at random, and the triggered ones made of them; all where there are fewer."""
        drawn = torch.zeros(len(self.clean.keys), dtype=torch.bool)
        drawn[torch.randperm(len(drawn), generator=Generator().manual_seed(seed))[:count]] = True
        kept = torch.isin(self.triggered.keys, self.clean.keys[drawn])
        return TestSets(self.clean.subset(drawn), self.triggered.subset(kept))

    def labeled_by(self, labels: Tensor, classes: list[str]) -> TestSets:
        """The same images with other labels for the clean ones, int64 [N], of these classes; without triggered ones."""
        named = {"classes": classes, "labeled": True}
        clean = replace(self.clean, labels=labels, manifest=self.clean.manifest.model_copy(update=named))
        none = self.triggered.subset(torch.zeros(len(self.triggered.keys), dtype=torch.bool))
        return TestSets(clean, replace(none, manifest=none.manifest.model_copy(update=named)))


def open_tests(clean: Path, triggered: Path, machine: Machine) -> TestSets:
    """The test sets in these folders: in memory where that takes no more than `MOST` and REFINE_MEMORY.

    Otherwise they are read as they are used.

    Raises:
        UserError: a folder is damaged.
    """
    sizes = [manifest.samples * 3 * manifest.side**2 for manifest in (complete(clean), complete(triggered))]
    if sum(sizes) <= min(MOST, machine.memory) << 20:
        return TestSets(read_split(clean, machine=machine), read_split(triggered, machine=machine))
    log.info("%s and %s, %.0f MiB: streamed", clean, triggered, sum(sizes) / 2**20)
    return TestSets(open_split(clean, machine), open_split(triggered, machine))


@dataclass(frozen=True)
class Diagnosed:
    """The images that diagnostics look at, int64 each: a first half, and a second one of the same classes.

    Attributes:
        benign: places in the clean split, [2 n].
        triggered: places in the triggered split, [2 n]; [0] where hardly anything is triggered.
        mapped_labels: true labels of the first half of `benign`, which is drawn on a map, [n].
        triggered_labels: true labels of the first half of `triggered`, which is drawn beside it.
    """

    benign: Tensor
    triggered: Tensor
    mapped_labels: Tensor
    triggered_labels: Tensor


def choose(truth: Truth, count: int) -> Diagnosed:
    """Two halves of so many benign images each, and of as many triggered ones; fewer of both where one runs out."""
    benign, triggered = halves(truth.labels), halves(truth.behind)
    count = min(count, benign.shape[1], triggered.shape[1] or count)
    benign, triggered = benign[:, :count], triggered[:, :count]
    return Diagnosed(benign.flatten(), triggered.flatten(), truth.labels[benign[0]], truth.behind[triggered[0]])


def halves(labels: Tensor) -> Tensor:
    """Places of all images in two halves, drawn at random within each class, int64 [2, N // 2].

    A column holds two images of one class, and the columns take the classes in turn, so that the first few are spread
    over them. Images that are left over in classes of odd size come last, in columns of two classes.
    """
    order = torch.randperm(len(labels), generator=Generator().manual_seed(_SEED))
    turns: list[tuple[int, tuple[int, int]]] = []
    alone: list[int] = []
    for label in sorted(set(labels.tolist())):
        places = order[labels[order] == label].tolist()
        turns += enumerate(_in_pairs(places))
        alone += places[len(places) // 2 * 2 :]
    columns = [pair for _, pair in sorted(turns, key=itemgetter(0))] + _in_pairs(alone)
    return torch.tensor(columns, dtype=torch.int64).view(-1, 2).T


def _in_pairs(places: list[int]) -> list[tuple[int, int]]:
    return list(zip(places[::2], places[1::2], strict=False))


def one_of_each(labels: Tensor, count: int) -> Tensor:
    """Places of the first image of each class, then of the second, and so on; int64 [at most count]."""
    turns: dict[int, int] = {}
    order = []
    for place, label in enumerate(labels.tolist()):
        turns[label] = turns.get(label, -1) + 1
        order.append((turns[label], label, place))
    return torch.tensor([place for _, _, place in sorted(order)[:count]], dtype=torch.int64)
