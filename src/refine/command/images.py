"""Image files on the command line, given as files or folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from refine.core.errors import UserError

LABELED = click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="Folder with a folder of images for each class, to measure accuracy.",
)


def listed(paths: Sequence[Path]) -> list[Path]:
    """Lists the files, and all files in the folders and their subfolders, sorted per folder, without hidden ones.

    Raises:
        UserError: a path does not exist, or a folder has no files or contains a link to a folder.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} is missing; give an image or a folder of images")
        found += _below(path) if path.is_dir() else [path]
    return found


def _below(folder: Path) -> list[Path]:
    files = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_dir():
            if path.is_symlink():
                raise UserError(f"{path} is a link to a folder, which is not followed; give that folder itself")
        else:
            files.append(path)
    if not files:
        raise UserError(f"{folder} contains no images; give another folder")
    return files
