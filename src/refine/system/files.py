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

from refine.system.errors import UserError

_CHUNK = 1 << 20


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
    partial = target.with_name(f".{target.name}.partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _remove(target)
        partial.replace(target)
    finally:
        _remove(partial)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Gives a path to write to; the file takes the place of `target` only when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that is the same for the same content: sorted keys, no NaN, one trailing newline."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with new_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is missing or is not a JSON object; the sentence ends with the remedy.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of 4,300 digits
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; {remedy}")
    return content


def inside(folder: Path, path: str) -> Path:
    """The path, provided that it lies inside the folder once links and `..` are followed.

    Raises:
        UserError: it points elsewhere.
    """
    candidate = Path(path)
    if not candidate.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} lies outside {folder}, where DVC cannot see it change; copy it into {folder}")
    return candidate


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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
