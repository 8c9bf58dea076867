"""Shards that another program wrote, in the usual form of webdataset: `KEY.jpg`, `KEY.cls` and perhaps `KEY.json`.

A key is the path of a file up to the first dot of its name. The label is a whole number, as text.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from typing import Any

IMAGES = ("bmp", "gif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp")
"""Endings of images; a sample has one file with one of them."""
LABEL, ABOUT = "cls", "json"
_MOST_DIGITS = 18


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
            raise ValueError(f"there is no {self.key}.{ending}")
        start, size = self.files[ending]
        return data[start : start + size]

    def image(self, data: bytes) -> bytes:
        """The content of its image.

        Raises:
            ValueError: it has none, or several.
        """
        found = [ending for ending in self.files if ending in IMAGES]
        if len(found) != 1:
            raise ValueError(f"it has {len(found)} images ({', '.join(found) or 'none of ' + ', '.join(IMAGES)})")
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
            ValueError: that is no JSON.
        """
        about: dict[str, Any] = {"file": self.key}
        if ABOUT in self.files:
            about["json"] = json.loads(self.cut(data, ABOUT).decode("utf-8"))
            json.dumps(about, ensure_ascii=False, allow_nan=False).encode("utf-8")  # it may have to be written again
        return about


def strangers(data: bytes) -> list[Stranger]:
    """The samples of a shard, in the order of their first files.

    Raises:
        ValueError: the data are not a whole tar archive, or a sample has two files with the same ending.
    """
    found: dict[str, Stranger] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if member.offset_data + member.size > len(data):
                    raise ValueError(f"{member.name} is cut off")
                if not stem or not ending:
                    continue
                own = found.setdefault(f"{folder}{slash}{stem}", Stranger(f"{folder}{slash}{stem}", {}))
                if ending.lower() in own.files:
                    raise ValueError(f"{member.name} occurs twice")
                own.files[ending.lower()] = member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(f"it is not a tar archive: {error}") from None
    return [each for each in found.values() if not each.files.keys().isdisjoint((*IMAGES, LABEL))]
