"""The preview of an attack: clean images, the same images after the attack, and as they are seen in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.backdoor.attacker_augmentation import Distortion
from refine.backdoor.distort import distort
from refine.pictures.grid import Caption, Grid, draw_grids, to_bytes
from refine.poisoning.attack import AnyAttack, Chosen
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.stored import StoredSplit

Change = Callable[[Tensor, Tensor], Tensor]

IMAGES = 8
_STRONG = 0.9  # quantile shown at full brightness; larger differences saturate, so that fainter ones remain visible
_AROUND = 2  # unchanged pixels to show around differences
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Preview:
    """Triggered test images, and the first poisoned, cover and benign training images.

    Attributes:
        attack: with its tensors; it is applied again to the images that are shown.
        train: clean training split.
        chosen: the selected training images.
        test: clean test split.
        to_trigger: bool [M], mask of the test images that get the trigger.
        seed: of random changes in training.
    """

    attack: AnyAttack
    train: StoredSplit
    chosen: Chosen
    test: StoredSplit
    to_trigger: Tensor
    seed: int

    def draw(self, path: Path) -> None:
        """Writes the preview as PNG."""
        draw_grids(path, *self._grids())

    def _grids(self) -> Iterator[Grid]:
        acts = self.attack.attacker_augmentation()
        if self.to_trigger.any():
            yield self._triggered()
        if len(self.chosen.poisoned):
            rows = self.chosen.poisoned[:IMAGES]
            names = self.train.manifest.classes
            pairs = zip(self.train.labels[rows].tolist(), self.attack.relabel(self.train.labels[rows]), strict=True)
            titles = [names[was] if was == given else f"{names[was]} as {names[given]}" for was, given in pairs]
            yield self._trained("poisoned", titles, rows, self.attack.poison, acts.poisoned)
        if len(self.chosen.cover):
            rows = self.chosen.cover[:IMAGES]
            yield self._trained("cover", self._classes(rows), rows, self.attack.cover, acts.benign)
        if acts.benign is not None or not len(self.chosen.poisoned):
            yield self._benign(acts.benign)

    def _triggered(self) -> Grid:
        """The first triggered test image of each class."""
        rows = self.to_trigger.nonzero().flatten()
        labels = self.test.labels[rows].tolist()
        first = [labels.index(label) for label in sorted(set(labels))][:IMAGES]
        clean = self.test.images[rows[first]]
        changed = self.attack.trigger(clean, self.test.keys[rows[first]])
        titles = [self.test.manifest.classes[labels[place]] for place in first]
        return _compared(titles, ("clean test", clean), ("triggered", changed))

    def _trained(self, kind: str, titles: Sequence[str], rows: Tensor, change: Change, acts: Distortion | None) -> Grid:
        """The first selected images before and after poisoning and, if it differs, as they are seen in training."""
        clean = self.train.images[rows]
        changed = change(clean, torch.arange(len(rows)))
        grid = _compared(titles, ("clean training", clean), (kind, changed))
        return grid if acts is None else Grid(titles, [*grid.rows, self._seen(changed, acts)], grid.captions)

    def _benign(self, acts: Distortion | None) -> Grid:
        benign = torch.ones(len(self.train.labels), dtype=torch.bool)
        benign[torch.cat([self.chosen.poisoned, self.chosen.cover])] = False
        rows = benign.nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=self._generator())[:IMAGES]]
        images = self.train.images[rows]
        seen = [] if acts is None else [self._seen(images, acts)]
        return Grid(self._classes(rows), [("benign training", images), *seen])

    def _seen(self, images: Tensor, acts: Distortion) -> tuple[str, Tensor]:
        return "seen in training", to_bytes(distort(to_pixels(images), acts, self._generator()))

    def _classes(self, rows: Tensor) -> list[str]:
        if not self.train.manifest.labeled:
            return [""] * len(rows)
        return [self.train.manifest.classes[label] for label in self.train.labels[rows].tolist()]

    def _generator(self) -> Generator:
        return Generator().manual_seed(self.seed)


def _compared(titles: Sequence[str], clean: tuple[str, Tensor], changed: tuple[str, Tensor]) -> Grid:
    shown, factors = difference(clean[1], changed[1])
    shown = enlarged(shown)
    side = shown.shape[-1]
    title = "difference" if side == clean[1].shape[-1] else f"difference in {side} {_TIMES} {side} pixels"
    captions = [Caption(f"{_TIMES} {factor}") for factor in factors]
    return Grid(titles, [clean, changed, (title, shown)], [("", ()), ("", ()), ("brightened", captions)])


def difference(clean: Tensor, changed: Tensor) -> tuple[Tensor, list[int]]:
    """Absolute differences between images, uint8 [n, 3, H, W], each brightened by an integer, and these factors.

    The factor brings the 0.9 quantile of the changed values to about full brightness; larger values saturate.
    """
    apart = (changed.int() - clean.int()).abs()
    factors = []
    for image in apart:
        strong = torch.quantile(image[image > 0].float(), _STRONG) if image.any() else torch.tensor(255.0)
        factors.append(max(1, int(255 // strong)))
    return (apart * torch.tensor(factors).view(-1, 1, 1, 1)).clamp(max=255).to(torch.uint8), factors


def enlarged(apart: Tensor) -> Tensor:
    """Crops differences, uint8 [n, 3, side, side], to the square that holds all changes, unless that is large."""
    side = apart.shape[-1]
    somewhere = apart.amax(dim=(0, 1)) > 0
    if not somewhere.any():
        return apart
    spans = [somewhere.any(dim=across).nonzero().flatten() for across in (1, 0)]
    size = max(int(span[-1] - span[0]) + 1 for span in spans) + 2 * _AROUND
    if size > side // 2:
        return apart
    top, left = (min(max(int(span[0]) - _AROUND, 0), side - size) for span in spans)
    return apart[:, :, top : top + size, left : left + size]
