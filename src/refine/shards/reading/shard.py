"""Reading all samples of a shard at once, into a few arrays.

webdataset reads a tar file member by member and silently ignores the rest of a truncated file. Here a shard is read as
a whole and its SHA-256 is compared; images written by `shards.writer` are then decoded together.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.shards.format import png
from refine.shards.format.manifest import Description, Shard
from refine.shards.reading.folder import content
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


def read_shard(
    folder: Path, shard: Shard, description: Description, only_images: bool = False, selected: Tensor | None = None
) -> Chunk:
    """Decodes a shard.

    Args:
        folder: of the shard.
        shard: its entry in the manifest.
        description: of the data set, with the side and the classes of all samples.
        only_images: do not read labels and infos, as for a defender without labels.
        selected: bool [samples of the shard], which ones are wanted; None: all.

    Raises:
        UserError: the shard or a sample in it is damaged.
    """
    with _opened(folder, shard) as files:
        keys = files.keys
        if selected is not None:
            keys = [key for key, own in zip(keys, selected.tolist(), strict=True) if own]
        numbers = files.numbers(keys)
        labels = [] if only_images else files.labels(keys, description)
        infos = [] if only_images else [_info(files.content(key, "json")) for key in keys]
        return Chunk(numbers, files.images(keys, description.side), torch.tensor(labels, dtype=torch.int64), infos)


def read_labels(folder: Path, shard: Shard, description: Description) -> tuple[Tensor, Tensor]:
    """Keys and labels of a shard, int64 [n] each, without decoding an image.

    Labels are 0 where the data set has none.

    Raises:
        UserError: the shard or a sample in it is damaged.
    """
    with _opened(folder, shard) as files:
        return files.numbers(files.keys), torch.tensor(files.labels(files.keys, description), dtype=torch.int64)


def read_flags(folder: Path, shard: Shard, name: str) -> Tensor:
    """Values of a boolean in the JSON of each sample of a shard, bool [n], without decoding an image.

    Raises:
        UserError: the shard is damaged, or the boolean is missing in a sample.
    """
    with _opened(folder, shard) as files:
        return flags([_info(files.content(key, "json")) for key in files.keys], name)


def flags(infos: list[dict[str, Any]], name: str) -> Tensor:
    """Values of a boolean in the JSON of each sample, bool [N].

    Raises:
        UserError: it is missing or not a boolean in a sample.
    """
    values = [info.get(name) for info in infos]
    if not all(isinstance(value, bool) for value in values):
        raise UserError(f"the JSON of a sample says neither true nor false for {name!r}; write the shards again")
    return torch.tensor(values, dtype=torch.bool)


class _Files:
    """The files of a shard's samples.

    Attributes:
        keys: of the samples, in order.
        last: key that was asked for last, for an error.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._members = _members(data)
        self.keys = list(self._members)
        self.last = ""

    def content(self, key: str, ending: str) -> bytes:
        start, size = self._place(key, ending)
        return self._data[start : start + size]

    def numbers(self, keys: list[str]) -> Tensor:
        """The keys as numbers, int64 [n]."""
        found: dict[int, str] = {}
        for key in keys:
            self.last = key
            if found.setdefault(_whole(key.encode(), _MOST_KEYS), key) != key:
                raise ValueError("another sample has this key")
        return torch.tensor(list(found), dtype=torch.int64)

    def labels(self, keys: list[str], description: Description) -> list[int]:
        if not description.labeled:
            return [0] * len(keys)
        return [_whole(self.content(key, "cls"), len(description.classes)) for key in keys]

    def images(self, keys: list[str], side: int) -> Tensor:
        """uint8 [n, 3, side, side]."""
        together = png.decode_all(self._data, [self._place(key, "png") for key in keys], side)
        images = empty_images(len(keys), side)
        if together is not None:
            images.copy_(torch.from_numpy(together).permute(0, 3, 1, 2))
        for row, key in enumerate(keys if together is None else ()):
            image = png.decode(self.content(key, "png"), side)
            images[row] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return images

    def _place(self, key: str, ending: str) -> tuple[int, int]:
        self.last = key
        return self._members[key][ending]


@contextmanager
def _opened(folder: Path, shard: Shard) -> Iterator[_Files]:
    """The files of a shard; errors inside the block name the sample.

    Raises:
        UserError: the shard or a sample in it is damaged.
    """
    path = folder / shard.name
    data = content(folder, shard)
    try:
        files = _Files(data)
    except ValueError as error:
        raise UserError(f"{path} is not a shard ({error}); write the shards again") from None
    if len(files.keys) != shard.samples:
        raise UserError(f"{path} holds {len(files.keys)} of {shard.samples} samples; write the shards again")
    try:
        yield files
    except (KeyError, ValueError, RecursionError, zlib.error, struct.error) as error:
        where = f"sample {files.last} of {path}"
        raise UserError(f"{where} cannot be decoded ({error!r}); write the shards again") from None


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
