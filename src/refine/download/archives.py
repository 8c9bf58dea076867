"""Reading files inside published archives, one after the other.

Nothing is unpacked, so no path in an archive leads anywhere.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from refine.core.errors import UserError
from refine.download.fitting import Fitted
from refine.shards.format.foreign import LARGEST_FILE
from refine.shards.writer import Sample


def in_tar(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Reads the regular files of a tar archive, compressed or not, in their order.

    Args:
        archive: path of it.
        wanted: whether to read the file of this name; a name does not begin with `./`.

    Raises:
        UserError: the archive is damaged, or a file in it is too large.
    """
    with _refusing_damage(archive), tarfile.open(archive, "r|*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isreg() and wanted(name):
                _refuse_large(archive, name, member.size)
                file = tar.extractfile(member)
                if file is not None:
                    yield name, file.read()


def in_zip(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Reads the files of a zip archive, sorted by name; see `in_tar`."""
    with _refusing_damage(archive), zipfile.ZipFile(archive) as opened:
        for entry in sorted(opened.infolist(), key=lambda entry: entry.filename):
            if not entry.is_dir() and wanted(entry.filename):
                _refuse_large(archive, entry.filename, entry.file_size)
                yield entry.filename, opened.read(entry)


Reader = Callable[[Path, Callable[[str], bool]], Iterator[tuple[str, bytes]]]


def contents(archive: Path, names: set[str], reader: Reader = in_tar) -> dict[str, bytes]:
    """The content of these files; reading stops when all are found.

    Raises:
        UserError: one of them is missing, or the archive is damaged.
    """
    found: dict[str, bytes] = {}
    for name, content in reader(archive, names.__contains__):
        found[name] = content
        if len(found) == len(names):
            break
    _refuse_missing(archive, names - found.keys())
    return found


def listed(archive: Path, reader: Reader = in_tar) -> list[str]:
    """The names of all regular files, in the order of `reader`."""
    names: list[str] = []

    def heard(name: str) -> bool:
        names.append(name)
        return False

    for _ in reader(archive, heard):
        pass
    return names


def photos(archive: Path, labels: dict[str, int], fitted: Fitted, reader: Reader = in_tar) -> Iterator[Sample]:
    """Reads image files of an archive in the order of `reader`, one at a time.

    Args:
        archive: path of it.
        labels: of the files to read, by name.
        fitted: how they become squares.
        reader: `in_tar` or `in_zip`.

    Raises:
        UserError: an image is missing or cannot be read, or the archive is damaged.
    """
    missing = dict(labels)
    for key, (name, content) in enumerate(reader(archive, missing.__contains__)):
        image = fitted.read(Path(f"{archive}:{name}"), content)
        yield Sample(key, image, missing.pop(name), {"source_index": key, "file": name})
    _refuse_missing(archive, set(missing))


@contextmanager
def _refusing_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise UserError(f"{archive} cannot be read as an archive ({error}); download it again") from None


def _refuse_large(archive: Path, name: str, size: int) -> None:
    if size > LARGEST_FILE:
        raise UserError(f"{archive} claims {size:,} bytes for {name}, which no such file has; download it again")


def _refuse_missing(archive: Path, names: set[str]) -> None:
    if names:
        raise UserError(
            f"{archive} lacks {len(names)} of the files that it should hold, such as {min(names)}; download it again"
        )
