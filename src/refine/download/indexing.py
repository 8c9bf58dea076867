"""Indexing shards that stay where they are: each is read once, for its sum and its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refine.core.bounds import MOST_CLASSES
from refine.core.documents import validated
from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.machine import Machine
from refine.core.progress import progress
from refine.download.source import Elsewhere
from refine.shards.format import elsewhere
from refine.shards.format.index import Index, write_labels
from refine.shards.format.network import remote
from refine.shards.format.strangers import shown, strangers


@dataclass(frozen=True)
class _Found:
    """A shard that was read, and the label of each of its samples; 0 for all where there are none."""

    address: str
    size: int
    sha256: str
    labels: list[int]


def write_indexes(data: Elsewhere, source: str, train: Path, test: Path | None, machine: Machine) -> int:
    """Writes the index of one split or of both; no folder appears before all are complete.

    Args:
        data: where the shards are.
        source: name of the data source.
        train: folder to write.
        test: likewise; None where the test split is not wanted.
        machine: its settings.

    Returns:
        Number of images.

    Raises:
        UserError: a shard cannot be read, holds no samples, or a label is no class.
    """
    wanted = [(train, data.train), *([] if test is None else [(test, data.test)])]
    found = [list(_looked(addresses, data, machine)) for _, addresses in wanted]
    names = data.classes
    if names is None:
        names = [str(label) for label in range(1 + max(max(shard.labels) for shards in found for shard in shards))]
    with ExitStack() as stack:
        parts = [stack.enter_context(new_folder(folder)) for folder, _ in wanted]
        return sum(_write(part, shards, data, source, names) for part, shards in zip(parts, found, strict=True))


def _looked(addresses: list[str], data: Elsewhere, machine: Machine) -> Iterator[_Found]:
    """Reads each shard once; what is fetched is kept where there is room."""
    classes = MOST_CLASSES if data.classes is None else len(data.classes)
    for address in progress(addresses, "index the shards", unit="shard"):
        content = elsewhere.fetched(address, machine)
        key, labels = "", []
        try:
            samples = strangers(content)
            if not samples:
                raise ValueError("it holds no sample")  # noqa: TRY301
            for sample in samples:
                key = sample.key
                sample.image(content)
                sample.about(content)
                labels.append(sample.label(content) if data.labeled else 0)
                if data.labeled and labels[-1] >= classes:
                    raise ValueError(f"its label {labels[-1]} is not one of {classes:,} classes")  # noqa: TRY301
        except ValueError as error:
            where = f"sample {shown(key)} of {address}" if key else address
            raise UserError(f"{where} cannot be used ({error}); mend it, or leave the shard out") from None
        sha256 = hashlib.sha256(content).hexdigest()
        if remote(address):
            elsewhere.keep(content, sha256, machine)
        yield _Found(address, len(content), sha256, labels)


def _write(folder: Path, shards: list[_Found], data: Elsewhere, source: str, names: list[str]) -> int:
    labels = np.array([label for shard in shards for label in shard.labels])
    content = {
        "source": source,
        "classes": names,
        "side": data.preparation.crop,
        "mean": list(data.mean),
        "std": list(data.std),
        "samples_per_shard": max(len(shard.labels) for shard in shards),
        "labeled": data.labeled,
        "preparation": data.preparation.model_dump(),
        "counts": np.bincount(labels, minlength=len(names)).tolist() if data.labeled else [],
        "labels_sha256": write_labels(folder, labels),
        "shards": [
            {
                "name": f"shard-{number:06d}.tar",
                "address": shard.address,
                "samples": len(shard.labels),
                "size": shard.size,
                "sha256": shard.sha256,
            }
            for number, shard in enumerate(shards)
        ],
    }
    what = Path(f"sources.{source}")  # whose settings decide on all of it
    validated(what, content, Index, "correct the settings, or take other shards").write(folder)
    return len(labels)
