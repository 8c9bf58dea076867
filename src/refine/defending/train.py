"""Trains any kind of defense for a classifier: the work of the stage train-defense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refine.core.documents import validated
from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.params import Section
from refine.core.registry import DEFENSES, TRAINING, component, part
from refine.defending import material
from refine.defending.material import GivenSplit
from refine.defending.protocol.card import DefenseCard
from refine.models import classifier as classifiers
from refine.models.card import write_card
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.training.checkpoint import Checkpoints
from refine.training.training_set import TrainingSet, open_training_set


@dataclass(frozen=True)
class Task:
    """What a defense's `train` is given.

    Attributes:
        settings: the defense's `Params`.
        seed: for everything random.
        classifier: frozen, in eval mode, on the CPU; a defense that changes weights changes a copy.
        card: of the classifier.
        images: folder of the shards that its data regime allows; does not exist for the regime `none`.
        compute: device and threads.
        folder: where to write the weights and the training curves; the card is written afterwards.
        checkpoints: of this run; None keeps none.
        split: what is known of the split of these images, where the settings name one.
    """

    settings: Any
    seed: int
    classifier: Classifier
    card: ClassifierCard
    images: Path
    compute: Compute
    folder: Path
    checkpoints: Checkpoints | None = None
    split: GivenSplit | None = None

    def open_images(self, fields: tuple[str, ...] = ()) -> TrainingSet:
        """The images that the defender is given.

        Args:
            fields: to give with each, see `training.training_set.open_training_set`.

        Raises:
            UserError: they are damaged, or their classes or their size are not those of the classifier.
        """
        images, manifest = open_training_set(self.images, fields, self.compute)
        if manifest.labeled and len(manifest.classes) != len(self.card.classes):
            raise UserError(
                f"{self.images} holds images of {len(manifest.classes)} classes, the classifier knows "
                f"{len(self.card.classes)}; give images that it was made for"
            )
        if manifest.side != self.card.input_side:
            raise UserError(
                f"{self.images} holds images of {manifest.side} pixels, the classifier takes {self.card.input_side}; "
                "give images that it was made for"
            )
        return images


Train = Callable[[Task], str | None]
"""Writes the weights and returns their SHA-256, or None where there are none."""


def train_defense(
    name: str,
    given_folder: Path,
    classifier_folder: Path,
    compute: Compute,
    folder: Path,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Trains a defense and writes its folder, which is loaded once as a check.

    Args:
        name: of the defense.
        given_folder: of what the defender is given, see `defending.given`.
        classifier_folder: of the classifier to defend; it is not changed.
        compute: device and threads.
        folder: of the defense.
        checkpoints: of this run; None keeps none.

    Raises:
        UserError: a folder is damaged, was made for another defense, or does not fit the classifier.
    """
    given = material.read(given_folder)
    if given.defense != name:
        raise UserError(f"{given_folder} was made for {given.defense!r}; run `dvc repro give-data@{name}`")
    module = component(DEFENSES, name, "defenses")
    settings: Section = validated(given_folder / material.NAME, given.settings, module.Params, "make it again")
    classifier, card = classifiers.load(classifier_folder)
    training = part(DEFENSES, name, TRAINING)
    train: Train | None = training.train if training else None
    with new_folder(folder) as partial:
        images = given_folder / material.IMAGES
        task = Task(settings, given.seed, classifier, card, images, compute, partial, checkpoints, given.split)
        sha256 = train(task) if train else None
        made = DefenseCard(
            kind=name,
            classifier_sha256=card.weights_sha256,
            settings=settings.model_dump(),
            weights_sha256=sha256,
            training={"seed": given.seed, "images": given.images, "regime": given.regime},
        )
        write_card(partial, made)
        module.load(partial, classifier_folder)  # refuses what cannot be used before the folder takes its place
