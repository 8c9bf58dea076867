"""The folder of a defended model: classifier, defense, and what was done, in one place that can be copied and loaded.

defended/
  classifier/     card.json and weights.safetensors, as they were given
  defense/        as the training of the defense wrote it
  defended.json   sums of both, and what was done
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.core.strict import Strict
from refine.models.card import NAME as CARD
from refine.models.card import Card, Sha256, read_card

NAME = "defended.json"
CLASSIFIER = "classifier"
DEFENSE = "defense"

REMEDY = "copy the folder again, or make it again with `refine defend`"

Count = Annotated[int, Field(ge=0)]

LITTLE_AGREEMENT = 0.9
"""With less, the defended model does not do the work of the classifier."""


class Sums(Strict):
    """SHA-256 of the two files of a model folder; `weights_sha256` is None for a defense without weights."""

    card_sha256: Sha256
    weights_sha256: Sha256 | None


class Images(Strict):
    """The user's images.

    Attributes:
        count: all of them.
        sha256: see `sum_of`.
        held_out: how many of them were not trained on.
        classes: that the classifier answers for enough of those that were trained on (`settings.Look`). The defended
            model cannot have learned any other, and the images that are held out do not tell.
    """

    count: Count
    sha256: Sha256
    held_out: Count
    classes: Count


class Agreement(Strict):
    """How often the defended model answers as the classifier does, on the images that are held out.

    Attributes:
        images: how many there are.
        same: how many get the same class from both.
    """

    images: Annotated[int, Field(ge=1)]
    same: Count

    @property
    def share(self) -> float:
        """Of the images, 0 to 1."""
        return self.same / self.images


class Defended(Strict):
    """Content of `defended.json`.

    Attributes:
        format_version: of this file.
        classifier: its sums.
        defense: its sums.
        method: name of the defense.
        settings: of its training; `built_in` tells whether they are those that the package chose.
        built_in: see `settings`.
        images: that it was trained and looked at with.
        agreement: on images that it was not trained on.
        versions: of this package and of torch, that made it.
    """

    format_version: Literal[1] = 1
    classifier: Sums
    defense: Sums
    method: str
    settings: dict[str, Any]
    built_in: bool
    images: Images
    agreement: Agreement
    versions: dict[str, str]


def is_defended(folder: Path) -> bool:
    """Whether a folder is that of a defended model, whole or damaged, and not that of a classifier alone."""
    return (folder / NAME).exists() or (folder / CLASSIFIER).is_dir()


def read(folder: Path) -> Defended:
    """Reads what was done, and compares the cards with their sums; weights are compared when they are loaded.

    Raises:
        UserError: the folder is damaged, or one of its parts was exchanged.
    """
    content = read_document(folder / NAME, Defended, REMEDY)
    for name, sums in ((CLASSIFIER, content.classifier), (DEFENSE, content.defense)):
        if sums_of(folder / name) != sums:
            raise UserError(f"{folder / name} is not the one that {folder / NAME} names (sha256 differs); {REMEDY}")
    return content


def sums_of(folder: Path) -> Sums:
    """The sums of a model folder, that of the weights from its card.

    Raises:
        UserError: there is no card.
    """
    weights = read_card(folder, _AnyCard).weights_sha256
    return Sums(card_sha256=sha256_of(folder / CARD), weights_sha256=weights)


class _AnyCard(Card):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    weights_sha256: Sha256 | None = None  # type: ignore[assignment]


def sum_of(sha256s: Iterable[str]) -> str:
    """One sum for many files: SHA-256 over theirs, sorted, one a line. It depends on their contents alone.

    Args:
        sha256s: of each file, hexadecimal.
    """
    return sum_of_lines(sorted(sha256s))


def sum_of_lines(lines: Iterable[str]) -> str:
    """SHA-256 over lines, each with its end."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
