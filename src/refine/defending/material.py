"""What a defender is given, as stored: `given.json`, and shards if the data regime has images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from refine.core.documents import read_document
from refine.core.strict import Strict
from refine.defending.protocol.defense import Regime

NAME = "given.json"
IMAGES = "train"


class GivenSplit(Strict):
    """What a defender knows of a split of the training set, beside the flags of its images.

    The JSON of each image says `split_clean` and `split_poisoned`; images for which both are false are uncertain.

    Attributes:
        name: of the split.
        clean: images that look clean.
        poisoned: images that look poisoned.
        gate: `passed`, or why the groups cannot be trusted.
        abstain: whether a defense should leave the classifier as it is because of the gate.
    """

    name: str
    clean: Annotated[int, Field(ge=0)]
    poisoned: Annotated[int, Field(ge=0)]
    gate: str
    abstain: bool


class Given(Strict):
    """Content of `given.json`.

    Attributes:
        defense: its name.
        regime: see `defending.protocol.defense.Regime`.
        settings: all of them, including published defaults.
        seed: for the choice of images and for the training.
        images: number of images in the shards beside it; 0 without shards.
        split: of these images, where the defense needs one.
    """

    defense: str
    regime: Regime
    settings: dict[str, Any]
    seed: int
    images: Annotated[int, Field(ge=0)]
    split: GivenSplit | None = None


def read(folder: Path) -> Given:
    """What a defender was given.

    Raises:
        UserError: the folder is missing or damaged.
    """
    return read_document(folder / NAME, Given, "run `dvc repro` for this defense again")
