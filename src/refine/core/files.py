"""Writing so that nobody ever sees half a file, and checking what was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refine.core.errors import UserError

LARGEST_JSON = 1 << 24
"""Bytes of a JSON file; what they spell takes up to 24 times as many in memory."""

PARTIALS = ".*.partial"
"""Pattern of the names that outputs have until they are whole; a killed process leaves some."""

_CHUNK = 1 << 20
_LONGEST_NAME, _LONGEST_PATH = 255, 2000  # the second is half of what Linux takes, so that there is room below it


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; it takes the place of `target` only when the block ends without an error.

    The folder stands beside the target (`.NAME.partial`), so that the last step is one rename. What an
    earlier, killed run left there is thrown away first.
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
    """Gives a path to write to; the file takes the place of `target` only when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that is the same for the same content: sorted keys, no NaN, one trailing newline.

    Raises:
        UserError: the file would be larger than what is read.
    """
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    if len(text) > LARGEST_JSON:
        raise UserError(f"{path} would be larger than {LARGEST_JSON >> 20} MiB; take fewer images or fewer shards")
    with new_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is missing, too large, or is not a JSON object; the sentence ends with the remedy.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'not a file' if os.path.lexists(path) else 'missing'}; {remedy}")
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"{path} is larger than the {LARGEST_JSON >> 20} MiB that such a file may have; {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of 4,300 digits
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; {remedy}")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def inside(folder: Path, path: str) -> Path:
    """The path, provided that it lies inside the folder and that DVC sees all of it change.

    DVC hashes what a link to a file points to, but passes over a link to a folder.

    Raises:
        UserError: it points elsewhere, or leads through a link to a folder.
    """
    if not is_name(path):
        raise UserError(f"{path[:_LONGEST_NAME]!a} is not a path; name a place in {folder}")
    candidate, home = Path(path), Path(os.path.realpath(folder))
    place = _without_dots(candidate)
    below = [place.relative_to(base) for base in (_without_dots(folder), home) if place.is_relative_to(base)]
    if not below:
        raise UserError(f"{path} lies outside {folder}, where DVC cannot see it change; copy it into {folder}")
    way, expected = candidate, home / below[0]
    if os.path.isfile(candidate):  # noqa: PTH113 (false for what no file can be called)
        way, expected = way.parent, expected.parent
    if os.path.realpath(way) != str(expected):
        raise UserError(f"{path} leads through a link, behind which DVC cannot see it change; copy it into {folder}")
    return candidate


def is_name(text: str) -> bool:
    """Whether a file can have this name or path: not too long, and UTF-8 without NUL, as git and DVC write it down."""
    try:
        written = text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return (
        b"\0" not in written and len(written) <= _LONGEST_PATH and max(map(len, written.split(b"/"))) <= _LONGEST_NAME
    )


def _without_dots(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (follows no links)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file that is whole after a crash of the machine too, or not there."""
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
    """Removes a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _partial(target: Path) -> Path:
    return target.with_name(PARTIALS.replace("*", target.name))
