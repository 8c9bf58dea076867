"""Writing files atomically, and reading and checking them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refine.core.errors import UserError

LARGEST_JSON = 1 << 24
"""Largest JSON file, in bytes; its parsed content takes up to 24 times as much memory."""

PARTIALS = ".*.partial"
"""Names of unfinished outputs; a killed process leaves them behind."""

_CHUNK = 1 << 20
_LONGEST_NAME, _LONGEST_PATH = 255, 2000  # half of Linux's limit, which leaves room for what lies below


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as a hexadecimal string."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; it replaces `target` only if the block ends without an error.

    The folder is `.NAME.partial` beside the target, so that the last step is one rename. Anything that an earlier,
    killed run left there is removed first.
    """
    partial = _partial(target)
    remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        remove(target)
        partial.replace(target)
    finally:
        remove(partial)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yields a path to write to; the file replaces `target` only if the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, see `json_bytes`."""
    written = json_bytes(content, str(path))
    with new_file(path) as partial:
        partial.write_bytes(written)


def json_bytes(content: Any, name: str) -> bytes:
    """JSON, deterministically: UTF-8, sorted keys, no NaN, one trailing newline.

    Args:
        content: of plain types.
        name: of the file that it is for.

    Raises:
        UserError: the file would be larger than `read_json` accepts.
    """
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    if len(text) > LARGEST_JSON:
        raise UserError(f"{name} would be larger than {LARGEST_JSON >> 20} MiB; take fewer images or fewer shards")
    return (text + "\n").encode()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table as CSV: a line of names, then numbers that are not whole with six significant digits."""
    with new_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is missing, too large, or not a JSON object; the message ends with the remedy.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'not a file' if os.path.lexists(path) else 'missing'}; {remedy}")
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"{path} is larger than the {LARGEST_JSON >> 20} MiB that such a file may have; {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number with over 4,300 digits
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; {remedy}")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def inside(folder: Path, path: str) -> Path:
    """Returns the path if it lies inside the folder, where DVC notices every change to it.

    DVC hashes the target of a link to a file, but ignores links to folders.

    Raises:
        UserError: the path lies outside the folder, or leads through a link to a folder.
    """
    if not is_name(path):
        raise UserError(f"{path[:_LONGEST_NAME]!a} is not a path; name a place in {folder}")
    candidate, home = Path(path), Path(os.path.realpath(folder))
    place = _without_dots(candidate)
    below = [place.relative_to(base) for base in (_without_dots(folder), home) if place.is_relative_to(base)]
    if not below:
        raise UserError(
            f"{path} lies outside {folder}, where DVC cannot see it change; copy it there, and write its whole path, "
            f"such as {folder / candidate.name}"
        )
    way, expected = candidate, home / below[0]
    if os.path.isfile(candidate):  # noqa: PTH113 (False for invalid names, too)
        way, expected = way.parent, expected.parent
    if os.path.realpath(way) != str(expected):
        raise UserError(f"{path} leads through a link, behind which DVC cannot see it change; copy it into {folder}")
    return candidate


def is_name(text: str) -> bool:
    """Whether a file can have this name or path: not too long, and UTF-8 without NUL, as git and DVC require."""
    try:
        written = text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return (
        b"\0" not in written and len(written) <= _LONGEST_PATH and max(map(len, written.split(b"/"))) <= _LONGEST_NAME
    )


def _without_dots(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (does not follow links)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file so that even after a crash of the machine it is either complete or absent."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _partial(target: Path) -> Path:
    return target.with_name(PARTIALS.replace("*", target.name))
