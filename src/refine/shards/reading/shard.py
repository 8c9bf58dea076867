"""Reading all samples of a shard at once, into a few arrays.

webdataset reads a tar file member by member and silently ignores the rest of a truncated file. Here a shard is read as
a whole and its SHA-256 is compared; images written by `shards.writer` are then decoded together.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.shards.format import manifest, png
from refine.shards.format.manifest import Description, Shard
from refine.shards.reading.pixels import empty_images

_BLOCK = 512
_MOST_KEYS = 10**18
_LONGEST = 40

Members = dict[str, dict[str, tuple[int, int]]]


@dataclass(frozen=True)
class Chunk:
    """The samples of a shard, in order.

    Attributes:
        keys: int64 [n].
        images: uint8 [n, 3, side, side], RGB.
        labels: int64 [n]; empty if only images were read, 0 for all where the data set has no labels.
        infos: the JSON of each sample; empty if only images were read.
    """

    keys: Tensor
    images: Tensor
    labels: Tensor
    infos: list[dict[str, Any]]


def read_shard(folder: Path, shard: Shard, description: Description, only_images: bool = False) -> Chunk:
    """Decodes a shard.

    Args:
        folder: of the shard.
        shard: its entry in the manifest.
        description: of the data set, with the side and the classes of all samples.
        only_images: do not read labels and infos, as for a defender without labels.

    Raises:
        UserError: the shard or a sample in it is damaged.
    """
    path = folder / shard.name
    data = manifest.content(folder, shard)
    try:
        members = _members(data)
    except ValueError as error:
        raise UserError(f"{path} is not a shard ({error}); write the shards again") from None
    if len(members) != shard.samples:
        raise UserError(f"{path} holds {len(members)} of {shard.samples} samples; write the shards again")
    numbers: list[int] = []
    labels: list[int] = []
    infos: list[dict[str, Any]] = []
    key = ""
    try:
        for key, files in members.items():
            files["png"]
            numbers.append(_whole(key.encode(), _MOST_KEYS))
            if not only_images:
                labels.append(_whole(_cut(data, files["cls"]), len(description.classes)) if description.labeled else 0)
                infos.append(_info(_cut(data, files["json"])))
        if len(set(numbers)) < len(numbers):
            raise ValueError("another sample has this key")  # noqa: TRY301 (the message below names the file)
        places = [files["png"] for files in members.values()]
        together = png.decode_all(data, places, description.side)
        images = empty_images(len(members), description.side)
        if together is not None:
            images.copy_(torch.from_numpy(together).permute(0, 3, 1, 2))
        for row, key in enumerate(members if together is None else ()):
            image = png.decode(_cut(data, members[key]["png"]), description.side)
            images[row] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    except (KeyError, ValueError, RecursionError, zlib.error, struct.error) as error:
        raise UserError(f"sample {key} of {path} cannot be decoded ({error!r}); write the shards again") from None
    columns = torch.tensor(numbers, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64)
    return Chunk(columns[0], images, columns[1], infos)


def _whole(digits: bytes, end: int) -> int:
    """Parses a whole number below `end` that consists of ASCII digits only."""
    if not re.fullmatch(rb"[0-9]{1,18}", digits) or int(digits) >= end:
        raise ValueError(f"{digits[:_LONGEST]!r} is not a whole number below {end}")
    return int(digits)


def _info(text: bytes) -> dict[str, Any]:
    info = json.loads(text.decode("utf-8"))
    if not isinstance(info, dict):
        raise ValueError("its JSON is not an object")  # noqa: TRY004 (an error in the file)
    if b"\\u" in text:
        json.dumps(info, ensure_ascii=False).encode("utf-8")  # a lone surrogate could not be written again
    return info


def _members(data: bytes) -> Members:
    """Start and size of each file in a tar archive, by key and extension; other extensions are ignored.

    Raises:
        ValueError: the data are not a tar archive.
    """
    found: Members = {}
    place = 0
    while place + _BLOCK <= len(data) and data[place]:
        name = data[place : place + 100].rstrip(b"\0").decode("ascii")
        size = int(data[place + 124 : place + 135], 8)
        start = place + _BLOCK
        place = start + -(-size // _BLOCK) * _BLOCK
        if size < 0 or place > len(data):
            raise ValueError(f"{name} is truncated")
        key, _, ending = name.partition(".")
        if ending in ("cls", "json", "png"):
            files = found.setdefault(key, {})
            if ending in files:
                raise ValueError(f"{name} occurs twice")
            files[ending] = (start, size)
    return found


def _cut(data: bytes, place: tuple[int, int]) -> bytes:
    start, size = place
    return data[start : start + size]
