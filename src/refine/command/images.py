"""Image files that a person names, singly or by the folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refine.core.errors import UserError


def listed(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those in and below the folders named, each folder's sorted; hidden ones are passed over.

    Raises:
        UserError: there is nothing of that name, a folder holds no file, or a link to a folder, which may be a circle.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} is missing; name an image or a folder of images")
        found += _below(path) if path.is_dir() else [path]
    return found


def _below(folder: Path) -> list[Path]:
    files = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_dir():
            if path.is_symlink():
                raise UserError(f"{path} is a link to a folder, which is not followed; name that folder itself")
        else:
            files.append(path)
    if not files:
        raise UserError(f"{folder} holds no images; name another folder")
    return files
