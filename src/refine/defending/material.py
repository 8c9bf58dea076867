"""What a defender is given, as stored: `given.json`, and shards if the data regime has images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from refine.core.documents import read_document
from refine.defending.protocol.defense import Regime

NAME = "given.json"
IMAGES = "train"


class Given(BaseModel):
    """Content of `given.json`.

    Attributes:
        defense: its name.
        regime: see `defending.protocol.defense.Regime`.
        settings: all of them, including published defaults.
        seed: for the choice of images and for the training.
        images: number of images in the shards beside it; 0 without shards.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    defense: str
    regime: Regime
    settings: dict[str, Any]
    seed: int
    images: Annotated[int, Field(ge=0)]


def read(folder: Path) -> Given:
    """What a defender was given.

    Raises:
        UserError: the folder is missing or damaged.
    """
    return read_document(folder / NAME, Given, "run `dvc repro` for this defense again")
