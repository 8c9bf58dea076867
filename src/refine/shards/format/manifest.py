"""The manifest of a folder of shards, and checks that the folder matches it.

A folder may be untrusted, so every number in the manifest is bounded before memory is allocated for it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from refine.core.bounds import MOST_CLASSES, MOST_SHARDS, Mean, SamplesPerShard, Side, Std
from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import write_json
from refine.core.strict import Strict

NAME = "manifest.json"
LEAST_FILE = 2 * 512
"""Smallest size of a file in a shard, in bytes: a header and one block; a sample has three, without a label two."""

Name = Annotated[str, Field(min_length=1, max_length=255)]


class Shard(Strict):
    """A tar file: its name, its number of samples and its SHA-256."""

    name: Annotated[str, Field(pattern=r"^shard-\d{6}\.tar$")]
    samples: SamplesPerShard
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Description(Strict):
    """Describes a data set and every folder of shards made from it.

    Attributes:
        source: name of the data set.
        classes: names, in the order of the labels; without labels, those that the user gave, or none.
        side: height and width of every image, in pixels.
        mean: of each channel, for pixels in [0, 1], as published for the data set.
        std: likewise.
        samples_per_shard: of every shard except the last, which may have fewer.
        labeled: whether the classes of the images are known. Only written where they are not, so that other manifests
            stay as they were. Shards of unlabeled images hold no labels, and readers give 0 for all of them.
    """

    source: Name
    classes: Annotated[list[Name], Field(max_length=MOST_CLASSES)]
    side: Side
    mean: Mean
    std: Std
    samples_per_shard: SamplesPerShard
    labeled: bool = True

    @model_validator(mode="after")
    def _refuse_too_few_classes(self) -> Self:
        if self.labeled and len(self.classes) < 2:
            raise ValueError("classes are fewer than two")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = written(self)
        return {name: value for name, value in content.items() if name != "labeled" or not value}

    def refuse_unlabeled(self, folder: Path, purpose: str) -> None:
        """Stops what needs labels.

        Args:
            folder: of the shards.
            purpose: what needs them, at the beginning of a sentence.

        Raises:
            UserError: the images have no labels.
        """
        if not self.labeled:
            raise UserError(
                f"{purpose} needs labels, which the images in {folder} (source {self.source}) do not have; "
                "choose a source with labels, such as `folder`"
            )


class Manifest(Description):
    """Describes one folder of shards.

    Attributes:
        format_version: of this file.
        counts: samples of each class, by their label in the shards; none without labels.
        shards: in reading order.
    """

    format_version: Literal[1] = 1
    counts: list[Annotated[int, Field(ge=0)]]
    shards: Annotated[list[Shard], Field(max_length=MOST_SHARDS)]

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")
        sizes = [shard.samples for shard in self.shards]
        if any(size != self.samples_per_shard for size in sizes[:-1]) or max(sizes, default=0) > self.samples_per_shard:
            raise ValueError("shards differ in size from samples_per_shard")
        counted = (len(self.classes), self.samples) if self.labeled else (0, 0)
        if (len(self.counts), sum(self.counts)) != counted:
            raise ValueError("counts do not match its classes and shards")
        return self

    @property
    def samples(self) -> int:
        """Number of samples in the folder."""
        return sum(shard.samples for shard in self.shards)

    @property
    def description(self) -> Description:
        """The part that is the same for every folder of this data set."""
        return Description(**self.model_dump(include=set(Description.model_fields)))

    def write(self, folder: Path) -> None:
        """Writes the manifest into the folder."""
        write_json(folder / NAME, self.model_dump())


def read(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
        UserError: it is missing, damaged or inconsistent.
    """
    return read_document(folder / NAME, Manifest, _remedy(folder))


def complete(folder: Path) -> Manifest:
    """Reads a folder's manifest and checks that exactly its shards are there.

    Raises:
        UserError: a shard is missing or too small for its samples, or the folder holds one that is not in the manifest.
    """
    manifest = read(folder)
    for shard in manifest.shards:
        path = folder / shard.name
        if not path.is_file():
            raise UserError(f"{path} is missing; {_remedy(folder)}")
        if path.stat().st_size < shard.samples * LEAST_FILE * (3 if manifest.labeled else 2):
            raise UserError(f"{path} is too small for the {shard.samples} samples of {NAME}; {_remedy(folder)}")
    unlisted = {path.name for path in folder.glob("*.tar")} - {shard.name for shard in manifest.shards}
    if unlisted:
        raise UserError(f"{folder / min(unlisted)} is not in {NAME}; {_remedy(folder)}")
    return manifest


def content(folder: Path, shard: Shard) -> bytes:
    """The bytes of a shard, after checking its SHA-256.

    Raises:
        UserError: the shard cannot be read, or its SHA-256 is not the one in the manifest.
    """
    path = folder / shard.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can no longer be read ({error.strerror}); {_remedy(folder)}") from None
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise UserError(f"{path} is damaged: its sha256 is not the one in {NAME}; {_remedy(folder)}")
    return data


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run `dvc repro` (or `dvc checkout`) to get it back"
