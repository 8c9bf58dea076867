"""The manifest of a folder of shards: what `manifest.json` holds.

A folder may be untrusted, so every number in the manifest is bounded before memory is allocated for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from refine.core.bounds import MOST_CLASSES, MOST_SHARDS, Mean, SamplesPerShard, Side, Std
from refine.core.errors import UserError
from refine.core.files import write_json
from refine.core.strict import Strict

NAME = "manifest.json"
Name = Annotated[str, Field(min_length=1, max_length=255)]
Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256."""
Owner = Literal["attacker", "defender"]
"""Who has a part of the training images."""
Counts = list[Annotated[int, Field(ge=0)]]


_UNWRITTEN = (("labeled", True), ("owner", "attacker"))
"""Defaults that are left out, so that manifests stay as they were before there was anything else."""


class Shard(Strict):
    """A tar file: its name, its number of samples and its SHA-256."""

    name: Annotated[str, Field(pattern=r"^shard-\d{6}\.tar$")]
    samples: SamplesPerShard
    sha256: Sum


class Description(Strict):
    """Describes a data set and every folder of shards made from it.

    Attributes:
        source: name of the data set.
        classes: names, in the order of the labels; without labels, those that the user gave, or none.
        side: height and width of every image, in pixels.
        mean: of each channel, for pixels in [0, 1], as published for the data set.
        std: likewise.
        samples_per_shard: of every shard except the last, which may have fewer.
        labeled: whether the classes of the images are known. Shards of unlabeled images hold no labels, and readers
            give 0 for all of them.
    """

    source: Name
    classes: Annotated[list[Name], Field(max_length=MOST_CLASSES)]
    side: Side
    mean: Mean
    std: Std
    samples_per_shard: SamplesPerShard
    labeled: bool = True

    @model_validator(mode="after")
    def _refuse_odd_classes(self) -> Self:
        if self.labeled and len(self.classes) < 2:
            raise ValueError("classes are fewer than two")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        return self

    def miscounted(self, counts: list[int], samples: int) -> bool:
        """Whether these samples of each class are not so many, or not of these classes."""
        return (len(counts), sum(counts)) != ((len(self.classes), samples) if self.labeled else (0, 0))

    @model_serializer(mode="wrap")
    def _without_default(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = written(self)
        return {name: value for name, value in content.items() if (name, value) not in _UNWRITTEN}

    @property
    def description(self) -> Description:
        """The part that is the same for every folder of this data set."""
        return Description(**self.model_dump(include=set(Description.model_fields)))

    def write(self, folder: Path) -> None:
        """Writes it into the folder."""
        write_json(folder / NAME, self.model_dump())

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
    counts: Counts
    shards: Annotated[list[Shard], Field(max_length=MOST_SHARDS)]

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")
        sizes = [shard.samples for shard in self.shards]
        if any(size != self.samples_per_shard for size in sizes[:-1]) or max(sizes, default=0) > self.samples_per_shard:
            raise ValueError("shards differ in size from samples_per_shard")
        if self.miscounted(self.counts, self.samples):
            raise ValueError("counts do not match its classes and shards")
        return self

    @property
    def samples(self) -> int:
        """Number of samples in the folder."""
        return sum(shard.samples for shard in self.shards)


class Base(Strict):
    """The folder of shards that an overlay changes.

    Attributes:
        folder: where it is, from the folder of the overlay.
        sha256: of its manifest.
    """

    folder: Annotated[str, Field(pattern=r"^\.\./[^\x00-\x1f]+$", max_length=2000)]
    sha256: Sum


class Overlay(Description):
    """Describes a folder that holds only those samples of another one that it changes.

    Attributes:
        format_version: of this file.
        base: the other folder.
        held_out: share of its samples that is held out for the defender, see `reading.held_out`.
        owner: whose samples these are; those of the other one are left out.
        sizes: samples that are left of each shard of the base, in its order.
        counts: samples of each class that are left, by their label after the changes; none without labels.
        shards: the changed samples, in a shard of the same name as that of the base; none where nothing changes.
    """

    format_version: Literal[2] = 2
    base: Base
    held_out: Annotated[float, Field(ge=0, le=1)]
    owner: Owner = "attacker"
    sizes: Annotated[Counts, Field(max_length=MOST_SHARDS)]
    counts: Counts
    shards: Annotated[list[Shard], Field(max_length=MOST_SHARDS)]

    def over(self, base: Manifest) -> Manifest:
        """The manifest of the result: all samples, with their sizes and labels after the changes.

        Raises:
            ValueError: the two do not fit.
        """
        own = {shard.name: shard.samples for shard in self.shards}
        if len(self.sizes) != len(base.shards) or len(own) < len(self.shards):
            raise ValueError("its shards are not those of its base")
        left = {shard.name: size for shard, size in zip(base.shards, self.sizes, strict=True)}
        if any(size > shard.samples for shard, size in zip(base.shards, self.sizes, strict=True)):
            raise ValueError("it has more samples than its base")
        if any(samples > left.get(name, 0) for name, samples in own.items()):
            raise ValueError("it changes more samples than there are")
        if self.description != base.description or self.miscounted(self.counts, sum(self.sizes)):
            raise ValueError("its classes, sides or counts are not those of its base")
        shards = [shard.model_copy(update={"samples": left[shard.name]}) for shard in base.shards if left[shard.name]]
        return base.model_copy(update={"counts": self.counts, "shards": shards})
