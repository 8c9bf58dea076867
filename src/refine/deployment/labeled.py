"""How often a classifier is right on labeled images, as it was delivered and with a defense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.core.progress import progress
from refine.defending.loading import load
from refine.defending.protocol.defense import NoDefense
from refine.deployment import folder as defended
from refine.deployment.inputs import read_files, unlabeled
from refine.evaluation.answers import predictions
from refine.models import classifier as classifiers
from refine.models.classifier import ClassifierCard
from refine.models.device import Compute

_AT_ONCE = 64


@dataclass(frozen=True)
class Labeled:
    """Images in a folder for each class.

    Attributes:
        files: of all classes.
        images: as the classifier takes them, uint8 [N, 3, side, side].
        labels: int64 [N].
    """

    files: list[Path]
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Accuracy:
    """How many of so many labeled images get their label.

    Attributes:
        images: how many there are.
        delivered: of them, right by the classifier alone.
        defended: of them, right by the defended classifier.
    """

    images: int
    delivered: int
    defended: int

    @property
    def drop(self) -> float:
        """Of the benign accuracy, as a share; below 0 where the defended model is better."""
        return (self.delivered - self.defended) / self.images


def labeled(folder: Path, card: ClassifierCard) -> Labeled:
    """The images in the class folders of a folder, and their labels.

    Class folders are called like the classes, or taken in the order of their names where there are as many.

    Raises:
        UserError: there are other folders than classes, no images, or something that is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one with a folder of images for each class")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    places = {name: label for label, name in enumerate(card.classes)}
    names = [path.name for path in folders]
    if not set(names) <= set(places):
        if len(folders) != len(card.classes):
            raise UserError(
                f"{folder} has {len(folders)} class folders, the model {len(card.classes)} classes, and their names "
                "differ; name the folders like the classes, or the classes like the folders by --classes"
            )
        places = {name: label for label, name in enumerate(names)}
    files, labels = [], []
    for path in folders:
        own = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file.relative_to(folder))]
        files += own
        labels += [places[path.name]] * len(own)
    if not files:
        raise UserError(f"{folder} holds no images; give a folder with a folder of images for each class")
    return Labeled(files, read_files(card, files), torch.tensor(labels))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def refuse_shared(checked: Labeled, files: Sequence[Path]) -> None:
    """Sees that labeled images are none of those that a defense is trained with.

    Args:
        checked: the labeled images.
        files: what the defense is trained with.

    Raises:
        UserError: a file is the same, byte for byte.
    """
    both = [*files, *checked.files]
    sums = [sha256_of(file) for file in progress(both, "compare images", len(both), "image")]
    known = dict(zip(sums, files, strict=False))
    for file, own in zip(checked.files, sums[len(files) :], strict=True):
        if own in known:
            raise UserError(f"{file} is also {known[own]}, which the defense is trained with; remove one of them")


def accuracies(folder: Path, checked: Labeled, compute: Compute) -> Accuracy:
    """Asks both models of a defended folder, see `deployment.folder`.

    Args:
        folder: of the defended model.
        checked: the labeled images.
        compute: device.

    Raises:
        UserError: the folder is damaged.
    """
    bare, card = classifiers.load(folder / defended.CLASSIFIER)
    defense = load(folder / defended.DEFENSE, folder / defended.CLASSIFIER)
    images = unlabeled(checked.images, card)
    before, after = (
        int((predictions(system.to(compute.device), images, _AT_ONCE, compute) == checked.labels).sum())
        for system in (NoDefense(bare).eval(), defense)
    )
    return Accuracy(len(checked.files), before, after)
