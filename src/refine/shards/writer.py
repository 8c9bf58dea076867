"""Writing webdataset shards that are byte-for-byte the same on every machine.

A sample consists of three files: `KEY.cls` (the label as text), `KEY.json` (where the image comes from) and `KEY.png`.
Samples of a data set without labels have no `KEY.cls`.
Tar headers contain no time and no owner. webdataset's own writer imports torch, which the stage download does not
need, and the standard library spends most of the time on headers; so one header is built by the standard library, and
the fields that differ between members are filled in here.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refine.core.files import json_bytes
from refine.shards.format.foreign import Pixels
from refine.shards.format.manifest import NAME, Description, Manifest, Shard
from refine.shards.format.network import Put
from refine.shards.format.png import encode


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        key: its index in the split, from 0; ascending within a folder.
        image: uint8 [side, side, 3], RGB.
        label: index into the classes; not written where the data set has no labels.
        info: anything else about it, written as JSON.
    """

    key: int
    image: Pixels
    label: int
    info: dict[str, Any]


def write_shards(folder: Path, samples: Iterable[Sample], description: Description) -> Manifest:
    """Writes samples in the given order, and their manifest, to an existing, empty folder; see `put_shards`."""
    return put_shards(writing(folder), samples, description)


def writing(folder: Path) -> Put:
    """What writes a file to a folder, by its name."""

    def put(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    return put


def put_shards(put: Put, samples: Iterable[Sample], description: Description) -> Manifest:
    """Writes samples in the given order, a shard at a time, and their manifest at the end.

    Args:
        put: writes a file by its name.
        samples: any number, including none.
        description: of the data set, including the size of a shard.
    """
    shards: list[Shard] = []
    counts = [0] * len(description.classes) if description.labeled else []
    open_shard: list[Sample] = []

    def close() -> None:
        if open_shard:
            shards.append(put_shard(put, f"shard-{len(shards):06d}.tar", open_shard, description.labeled))
            open_shard.clear()

    for sample in samples:
        open_shard.append(sample)
        if counts:
            counts[sample.label] += 1
        if len(open_shard) == description.samples_per_shard:
            close()
    close()
    manifest = Manifest(**description.model_dump(), counts=counts, shards=shards)
    put(NAME, json_bytes(manifest.model_dump(), NAME))
    return manifest


def put_shard(put: Put, name: str, samples: list[Sample], labeled: bool) -> Shard:
    """Writes samples, at least one, as one shard.

    Args:
        put: writes a file by its name.
        name: of this one.
        samples: in their order.
        labeled: whether their labels are written.

    Returns:
        Its entry in a manifest.
    """
    parts: list[bytes] = []
    for sample in samples:
        info = json.dumps(sample.info, sort_keys=True, ensure_ascii=False)
        label = [("cls", str(sample.label).encode())] if labeled else []
        for ending, content in (*label, ("json", info.encode()), ("png", encode(sample.image))):
            padding = bytes(-len(content) % tarfile.BLOCKSIZE)
            parts += [_header(f"{sample.key:08d}.{ending}", len(content)), content, padding]
    end = sum(map(len, parts)) + 2 * tarfile.BLOCKSIZE
    whole = b"".join([*parts, bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE)])
    put(name, whole)
    return Shard(name=name, samples=len(samples), sha256=hashlib.sha256(whole).hexdigest())


def _frame() -> bytes:
    """The header of an empty member without a name."""
    member = tarfile.TarInfo()
    member.mode = 0o444
    return member.tobuf(tarfile.USTAR_FORMAT)


_FRAME = _frame()
_SIZE = slice(124, 135)
_CHECKSUM = slice(148, 154)
_NAME_LENGTH = 100
_REST = sum(_FRAME[: _CHECKSUM.start]) + 8 * ord(" ") + sum(_FRAME[_CHECKSUM.start + 8 :]) - sum(_FRAME[_SIZE])


def _header(name: str, size: int) -> bytes:
    """A POSIX 1003.1 (ustar) header of 512 bytes; the checksum field counts as spaces in the checksum."""
    encoded, digits = name.encode(), b"%011o" % size
    if len(encoded) > _NAME_LENGTH or len(digits) > _SIZE.stop - _SIZE.start:
        raise ValueError(f"{name} of {size} bytes does not fit a tar header")
    header = bytearray(_FRAME)
    header[: len(encoded)] = encoded
    header[_SIZE] = digits
    header[_CHECKSUM] = b"%06o" % (_REST + sum(encoded) + sum(digits))
    return bytes(header)
