"""Writing webdataset shards that are byte for byte the same on every machine.

One sample is three files: `KEY.cls` (the label as text), `KEY.json` (where the image comes from) and `KEY.png`.
Tar headers carry no time and no owner. The standard library writes them, because webdataset's writer imports
torch, which the stage download does without.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refine.data.format.manifest import Description, Manifest, Shard
from refine.data.format.png import Pixels, encode
from refine.system.files import sha256_of


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        key: its place in the split, from 0; ascending within a folder.
        image: uint8 [side, side, 3], RGB.
        label: index into the classes.
        info: what is known about it, as JSON.
    """

    key: int
    image: Pixels
    label: int
    info: dict[str, Any]


def write_shards(folder: Path, samples: Iterable[Sample], description: Description) -> Manifest:
    """Writes samples in the order given, and the manifest that describes them.

    Args:
        folder: exists and is empty.
        samples: any number, none included.
        description: of the data set, and the size of a shard.
    """
    shards: list[Shard] = []
    counts = [0] * len(description.classes)
    open_shard: list[Sample] = []

    def close() -> None:
        if open_shard:
            shards.append(_write_shard(folder / f"shard-{len(shards):06d}.tar", open_shard))
            open_shard.clear()

    for sample in samples:
        open_shard.append(sample)
        counts[sample.label] += 1
        if len(open_shard) == description.samples_per_shard:
            close()
    close()
    manifest = Manifest(**description.model_dump(), counts=counts, shards=shards)
    manifest.write(folder)
    return manifest


def _write_shard(path: Path, samples: list[Sample]) -> Shard:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            info = json.dumps(sample.info, sort_keys=True, ensure_ascii=False)
            for ending, content in (
                ("cls", str(sample.label).encode()),
                ("json", info.encode()),
                ("png", encode(sample.image)),
            ):
                header = tarfile.TarInfo(f"{sample.key:08d}.{ending}")
                header.size = len(content)
                header.mode = 0o444
                tar.addfile(header, io.BytesIO(content))
    return Shard(name=path.name, samples=len(samples), sha256=sha256_of(path))
