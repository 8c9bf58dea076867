"""Indexing shards that stay where they are: each is read once, for its sum and its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.machine import Machine
from refine.core.progress import progress
from refine.download.source import Elsewhere
from refine.shards.format import elsewhere
from refine.shards.format.index import Index, Place, write_labels
from refine.shards.format.strangers import strangers


@dataclass(frozen=True)
class _Found:
    """A shard that was read, and the label of each of its samples; -1 where there are none."""

    address: str
    sha256: str
    labels: list[int]


def write_indexes(data: Elsewhere, source: str, train: Path, test: Path, machine: Machine) -> int:
    """Writes the indexes of both splits; neither folder appears before both are complete.

    Args:
        data: where the shards are.
        source: name of the data source.
        train: folder to write.
        test: likewise.
        machine: its settings.

    Returns:
        Number of images.

    Raises:
        UserError: a shard cannot be read, holds no samples, or a label is no class.
    """
    found = [list(_looked(addresses, data.labeled, machine)) for addresses in (data.train, data.test)]
    largest = max(max(shard.labels) for shards in found for shard in shards)
    names = data.classes
    if names is None:
        names = [str(label) for label in range(largest + 1)]
    elif largest >= len(names):
        raise UserError(f"a sample has the label {largest}, but sources.{source}.classes names {len(names)} classes")
    with new_folder(test) as test_part, new_folder(train) as train_part:
        return sum(
            _write(part, shards, data, source, names)
            for part, shards in zip((train_part, test_part), found, strict=True)
        )


def _looked(addresses: list[str], labeled: bool, machine: Machine) -> Iterator[_Found]:
    """Reads each shard once; what is fetched is kept where there is room."""
    for address in progress(addresses, "index the shards", unit="shard"):
        data = elsewhere.fetched(address, machine)
        sha256 = hashlib.sha256(data).hexdigest()
        key = ""
        try:
            samples = strangers(data)
            if not samples:
                raise ValueError("it holds no sample")  # noqa: TRY301
            labels = []
            for sample in samples:
                key = sample.key
                sample.image(data)
                labels.append(sample.label(data) if labeled else -1)
        except ValueError as error:
            where = f"sample {key} of {address}" if key else address
            raise UserError(f"{where} cannot be used ({error}); mend it, or leave the shard out") from None
        if elsewhere.remote(address):
            elsewhere.keep(data, sha256, machine)
        yield _Found(address, sha256, labels)


def _write(folder: Path, shards: list[_Found], data: Elsewhere, source: str, names: list[str]) -> int:
    labels = np.array([max(0, label) for shard in shards for label in shard.labels])
    Index(
        source=source,
        classes=names,
        side=data.preparation.crop,
        mean=list(data.mean),
        std=list(data.std),
        samples_per_shard=max(len(shard.labels) for shard in shards),
        labeled=data.labeled,
        preparation=data.preparation,
        counts=np.bincount(labels, minlength=len(names)).tolist() if data.labeled else [],
        labels_sha256=write_labels(folder, labels),
        shards=[
            Place(
                name=f"shard-{number:06d}.tar",
                address=shard.address,
                samples=len(shard.labels),
                sha256=shard.sha256,
            )
            for number, shard in enumerate(shards)
        ],
    ).write(folder)
    return len(labels)
