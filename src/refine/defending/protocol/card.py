"""The card of a defense's folder, and the classifier that belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refine.core.documents import validated
from refine.core.errors import UserError
from refine.core.params import Section
from refine.models import classifier as classifiers
from refine.models.card import NAME, REMEDY, WEIGHTS, Card, Sha256, read_card
from refine.models.classifier import Classifier, ClassifierCard


class DefenseCard(Card):
    """Card of a defense.

    Attributes:
        kind: its name, a folder of `refine.defenses`.
        classifier_sha256: of the weights of the classifier that it was made for.
        settings: all of them, including published defaults.
        weights_sha256: None if it has no weights of its own.
    """

    classifier_sha256: Sha256
    settings: dict[str, Any]
    weights_sha256: Sha256 | None = None  # type: ignore[assignment]


def settings_of(folder: Path, card: DefenseCard, params: type[Section]) -> Any:
    """The settings in a card, as the defense's `Params`.

    Raises:
        UserError: they do not fit.
    """
    return validated(folder / NAME, card.settings, params, REMEDY)


def read_defense_card(folder: Path, name: str) -> DefenseCard:
    """The card of a defense called so.

    Raises:
        UserError: it is missing, damaged or that of something else.
    """
    card = read_card(folder, DefenseCard)
    if card.kind != name:
        raise UserError(f"{folder} holds {card.kind[:100]!r} and not {name!r}; give another folder")
    return card


def weights_of(folder: Path, card: DefenseCard) -> tuple[Path, str]:
    """The file of a defense's weights, and its sum.

    Raises:
        UserError: the card names none.
    """
    if card.weights_sha256 is None:
        raise UserError(f"{folder / NAME} names no weights; {REMEDY}")
    return folder / WEIGHTS, card.weights_sha256


def protected_classifier(folder: Path, sha256: str, classifier_folder: Path) -> tuple[Classifier, ClassifierCard]:
    """The classifier that a defense was made for, in eval mode and frozen.

    Args:
        folder: of the defense.
        sha256: of the classifier's weights, from the defense's card.
        classifier_folder: where the classifier lies.

    Raises:
        UserError: the classifier's folder is damaged, or it is another one.
    """
    classifier, card = classifiers.load(classifier_folder)
    if card.weights_sha256 != sha256:
        raise UserError(
            f"{folder} was trained for another classifier than {classifier_folder} (their sha256 differ); "
            "train it again for this one"
        )
    return classifier, card
