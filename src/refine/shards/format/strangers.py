"""Shards that another program wrote, in the usual form of webdataset: `KEY.jpg`, `KEY.cls` and perhaps `KEY.json`.

A key is the path of a file up to the first dot of its name. The label is a whole number, as text.

Such a file may be hostile. Python's `tarfile` goes on for ever on some, and raises errors of many kinds on others, so
the few kinds of entries that archives of plain files have are read here, and all others are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

IMAGES = ("bmp", "gif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp")
"""Endings of images; a sample has one file with one of them."""
LABEL, ABOUT = "cls", "json"
_MOST_DIGITS = 18
_BLOCK = 512
_LONGEST_NAME = 4096
_FILES, _FOLDERS, _LINKS = b"0\0" + b"7", b"5", b"12"
_PAX_RECORD = re.compile(rb"([0-9]{1,5}) ([^=]{1,200})=")


@dataclass(frozen=True)
class Stranger:
    """A sample: its key, and start and size of its files by their endings in lower case."""

    key: str
    files: dict[str, tuple[int, int]]

    def cut(self, data: bytes, ending: str) -> bytes:
        """The content of one of its files.

        Raises:
            ValueError: it has none with this ending.
        """
        if ending not in self.files:
            raise ValueError(f"it has no file that ends in .{ending}")
        start, size = self.files[ending]
        return data[start : start + size]

    def image(self, data: bytes) -> bytes:
        """The content of its image.

        Raises:
            ValueError: it has none, or several.
        """
        found = [ending for ending in self.files if ending in IMAGES]
        if len(found) != 1:
            raise ValueError(f"it has {len(found)} images; one is needed, as {', '.join(IMAGES)}")
        return self.cut(data, found[0])

    def label(self, data: bytes) -> int:
        """Its label.

        Raises:
            ValueError: it has none, or it is not a whole number.
        """
        text = self.cut(data, LABEL).strip()
        if not text.isdigit() or len(text) > _MOST_DIGITS:
            raise ValueError(f"its label {text[:40]!r} is not a whole number")
        return int(text)

    def about(self, data: bytes) -> dict[str, Any]:
        """What is written into the JSON of the sample here: its key, and its own JSON where it has one.

        Raises:
            ValueError: that is no JSON, or could not be written again.
        """
        about: dict[str, Any] = {"file": self.key}
        if ABOUT in self.files:
            try:
                about["json"] = json.loads(self.cut(data, ABOUT).decode("utf-8"))
                json.dumps(about, ensure_ascii=False, allow_nan=False).encode("utf-8")
            except RecursionError:
                raise ValueError("its JSON is nested too deep") from None
        return about


def strangers(data: bytes) -> list[Stranger]:
    """The samples of a shard, in the order of their first files.

    Raises:
        ValueError: the data are not a whole tar archive of plain files, or a sample has two files with the same ending.
    """
    found: dict[str, Stranger] = {}
    for name, start, size in _entries(data):
        folder, slash, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        key = f"{folder}{slash}{stem}"
        own = found.setdefault(key, Stranger(key, {})).files
        if ending.lower() in own:
            raise ValueError(f"{shown(name)} occurs twice")
        own[ending.lower()] = start, size
    return list(found.values())


def shown(name: str) -> str:
    """A name from an archive, for a message."""
    return ascii(name[:100])[1:-1]


def _entries(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each plain file (POSIX 1003.1, with the long names of GNU tar and of pax)."""
    place, long = 0, None
    while any(header := data[place : place + _BLOCK]):
        kind, size = _header(header)
        start, place = place + _BLOCK, place + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if place > len(data):
            raise ValueError("it is cut off")
        content = data[start : start + min(size, 2 * _LONGEST_NAME)] if kind in b"LxgK" else b""
        if kind in b"Lx":
            long = content.rstrip(b"\0") if kind == b"L" else _pax_path(content, size) or long
        elif kind in _FILES:
            yield _text(long or _short(header)), start, size
            long = None
        elif kind in _FOLDERS:
            long = None
        elif kind not in b"gK":
            what = "a link" if kind in _LINKS else f"an entry of the kind {kind!r}"
            raise ValueError(f"{shown(_text(long or _short(header)))} is {what}, not a file")
    if len(header) < _BLOCK:
        raise ValueError("it is cut off")


def _header(header: bytes) -> tuple[bytes, int]:
    """Kind and size of an entry."""
    if len(header) < _BLOCK:
        raise ValueError("it is cut off")
    expected, size = (_number(header[field]) for field in (slice(148, 156), slice(124, 136)))
    if expected != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise ValueError("it is not a tar archive, or is damaged")
    return header[156:157], size


def _number(field: bytes) -> int:
    """A number in octal digits; sizes of 8 GiB and more, which are written otherwise, are none that fit."""
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,12}", digits):
        raise ValueError("it is not a tar archive, or holds a file of 8 GiB or more")
    return int(digits, 8)


def _short(header: bytes) -> bytes:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _pax_path(content: bytes, size: int) -> bytes | None:
    """The path in an extended header, where it has one."""
    if size > len(content):
        raise ValueError("it has an extended header that is too long")
    place, path = 0, None
    while place < size:
        record = _PAX_RECORD.match(content, place)
        end = place + int(record[1]) if record else 0
        if record is None or not record.end() < end <= size:
            raise ValueError("it has an extended header that is damaged")
        if record[2] == b"path":
            path = content[record.end() : end - 1]
        elif record[2] == b"size" or record[2].startswith(b"GNU.sparse"):
            raise ValueError("it holds a file of 8 GiB or more, or one with holes")
        place = end
    return path


def _text(name: bytes) -> str:
    if len(name) > _LONGEST_NAME:
        raise ValueError("it holds a name that is too long")
    return name.decode("utf-8")
