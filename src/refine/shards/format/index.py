"""An index: a folder that describes shards which lie elsewhere, and holds none of their images.

The shards may be a stranger's, in the usual form of webdataset, and may lie in a bucket. Their addresses, their sums
and all labels are here; images are fetched and decoded when they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from refine.core.bounds import MOST_SHARDS, SamplesPerShard
from refine.core.files import sha256_of
from refine.core.strict import Strict
from refine.shards.format.elsewhere import LARGEST
from refine.shards.format.manifest import Counts, Description, Manifest, Shard, Sum
from refine.shards.format.network import Address
from refine.shards.format.preparation import Preparation

LABELS = "labels.safetensors"
"""The file with the labels of all samples, int32 [N], in the tensor `labels`."""
LABEL_BYTES = 4


class Place(Strict):
    """A shard elsewhere: what it is called here, where it is, its number of samples, its bytes and its SHA-256."""

    name: Annotated[str, Field(pattern=r"^shard-\d{6}\.tar$")]
    address: Address
    samples: SamplesPerShard
    size: Annotated[int, Field(ge=0, le=LARGEST)]
    sha256: Sum


class Index(Description):
    """Describes shards that lie elsewhere.

    Attributes:
        format_version: of this file.
        preparation: how each image becomes a square.
        counts: samples of each class; none without labels.
        labels_sha256: of the file with all labels.
        shards: in reading order.
    """

    format_version: Literal[3] = 3
    preparation: Preparation
    counts: Counts
    labels_sha256: Sum
    shards: Annotated[list[Place], Field(max_length=MOST_SHARDS)]

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")
        if max((shard.samples for shard in self.shards), default=0) > self.samples_per_shard:
            raise ValueError("shards are larger than samples_per_shard")
        if self.miscounted(self.counts, sum(shard.samples for shard in self.shards)):
            raise ValueError("counts do not match its classes and shards")
        if self.preparation.crop != self.side:
            raise ValueError("side is not that of its preparation")
        return self

    @property
    def manifest(self) -> Manifest:
        """The manifest that such shards would have here."""
        shards = [Shard(name=shard.name, samples=shard.samples, sha256=shard.sha256) for shard in self.shards]
        of = self.description
        fields = {name: getattr(of, name) for name in Description.model_fields}
        return Manifest.model_construct(**fields, counts=self.counts, shards=shards)


def write_labels(folder: Path, labels: np.ndarray) -> str:
    """Writes the labels of all samples, int [N], and returns the SHA-256 of the file."""
    from safetensors.numpy import save_file  # loads slowly, and most data sets do not need it

    save_file({"labels": labels.astype(np.int32)}, folder / LABELS)
    return sha256_of(folder / LABELS)
