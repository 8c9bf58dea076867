"""The manifest of a folder of shards: what the folder holds, and the checks that it still does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refine.system.errors import UserError
from refine.system.files import read_json, write_json

NAME = "manifest.json"


class Shard(BaseModel):
    """One tar file: its plain name, how many samples it holds, its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: Annotated[str, Field(pattern=r"^shard-\d{6}\.tar$")]
    samples: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Description(BaseModel):
    """What is true of a data set and of every folder of shards made from it.

    Attributes:
        source: name of the data set.
        classes: names, in the order of the labels.
        side: height and width of every image, in pixels.
        mean: of each channel of pixels in [0, 1], published for the data set.
        std: likewise.
        samples_per_shard: of every shard but the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    source: str
    classes: list[str]
    side: Annotated[int, Field(ge=1)]
    mean: list[float]
    std: list[float]
    samples_per_shard: Annotated[int, Field(ge=1)]


class Manifest(Description):
    """What one folder of shards holds.

    Attributes:
        format_version: of this file.
        counts: samples of each class, by their label in the shards.
        shards: in reading order.
    """

    format_version: Literal[1] = 1
    counts: list[int]
    shards: list[Shard]

    @property
    def samples(self) -> int:
        """Number of samples in the folder."""
        return sum(shard.samples for shard in self.shards)

    @property
    def description(self) -> Description:
        """The part that another folder of the same data set shares."""
        return Description(**self.model_dump(include=set(Description.model_fields)))

    def write(self, folder: Path) -> None:
        """Writes the manifest into the folder."""
        write_json(folder / NAME, self.model_dump())


def read(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
        UserError: it is missing or damaged.
    """
    content = read_json(folder / NAME, remedy=_remedy(folder))
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"{folder / NAME} is damaged ({where}: {problem['msg']}); {_remedy(folder)}") from None


def complete(folder: Path) -> Manifest:
    """Reads a folder's manifest and checks that its shards are there, and no others.

    Raises:
        UserError: a shard is missing, or the folder holds one that is not in the manifest.
    """
    manifest = read(folder)
    for shard in manifest.shards:
        if not (folder / shard.name).is_file():
            raise UserError(f"{folder / shard.name} is missing; {_remedy(folder)}")
    strangers = {path.name for path in folder.glob("*.tar")} - {shard.name for shard in manifest.shards}
    if strangers:
        raise UserError(f"{folder / min(strangers)} is not in {NAME}; {_remedy(folder)}")
    return manifest


def content(folder: Path, shard: Shard) -> bytes:
    """The bytes of a shard, checked before anything in them is used.

    Raises:
        UserError: the shard cannot be read, or its SHA-256 is not the one in the manifest.
    """
    path = folder / shard.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read any more ({error.strerror}); {_remedy(folder)}") from None
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise UserError(f"{path} is damaged: its sha256 is not the one in {NAME}; {_remedy(folder)}")
    return data


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run `dvc repro` (or `dvc checkout`) to get it back"
