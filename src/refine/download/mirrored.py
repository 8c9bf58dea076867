"""Folders of image files in a mirror, with a list of their SHA-256 sums that is itself known by its sum."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.download.fitting import Fitted
from refine.download.source import Source
from refine.shards.writer import Sample

LIST = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@dataclass(frozen=True)
class Folder:
    """A folder whose files are known.

    Attributes:
        path: of the folder.
        sums: SHA-256 of each file, by its path in the folder.
    """

    path: Path
    sums: dict[str, str]

    def samples(self, labels: Iterable[tuple[str, int]], fitted: Fitted) -> Iterator[Sample]:
        """Reads image files one at a time.

        Args:
            labels: path of each file, and its label.
            fitted: how the images become squares.

        Raises:
            UserError: a file is missing, is not the listed one, or cannot be read as an image.
        """
        for key, (name, label) in enumerate(labels):
            path = self.path / name
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); complete the mirror") from None
            if hashlib.sha256(content).hexdigest() != self.sums[name]:
                raise UserError(f"{path} is not the file that {LIST} lists (its sha256 differs); replace it")
            yield Sample(key, fitted.read(path, content), label, {"source_index": key, "file": name})

    def split(self, name: str) -> list[str]:
        """The files in `name/CLASS/`, sorted."""
        return sorted(path for path in self.sums if len(PurePosixPath(path).parts) == 3 and path.startswith(f"{name}/"))


def folder(source: Source, name: str, sha256: str) -> Folder:
    """Opens a folder in the mirror; its files are compared with the list as they are read.

    Args:
        source: with the mirror, which has to be a folder.
        name: of the folder.
        sha256: of its list.

    Raises:
        UserError: the folder is not there, or its list is another one.
    """
    if source.mirror is None or "://" in source.mirror:
        raise UserError(f"this data set is not published; set REFINE_MIRROR to a folder that holds {name}")
    listed = Path(source.mirror) / name / LIST
    if not listed.is_file():
        raise UserError(f"{listed} is missing; set REFINE_MIRROR to a folder that holds {name}")
    if sha256_of(listed) != sha256:
        raise UserError(f"{listed} is another list than the known one (its sha256 differs); replace {listed.parent}")
    lines = (_LINE.fullmatch(line) for line in listed.read_text(encoding="utf-8").splitlines())
    return Folder(listed.parent, {line[2]: line[1] for line in lines if line})
