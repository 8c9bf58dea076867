"""The user's own files below `data/own/images`: only what DVC tracks is listed, and everything else is refused by name.

Links to files are followed, as DVC hashes their targets. Links to folders are refused, as DVC ignores them and would
not notice that images have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import is_name
from refine.download.fitting import Fitted
from refine.shards.writer import Sample

LARGEST_LIST = 1 << 24
"""Largest text file with names, in bytes."""


def entries(folder: Path) -> list[Path]:
    """Lists the files and folders of a folder; sorted, without hidden ones (`.name`) and what `dvc add` leaves there.

    Raises:
        UserError: it holds something that DVC cannot track.
    """
    found = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.suffix != ".dvc")
    for path in found:
        if not is_name(path.name):
            raise UserError(f"{str(path)!a} has a name that is not UTF-8, which DVC cannot store; rename it")
        if path.is_dir():
            refuse_link(path)
        elif not path.is_file():
            raise UserError(f"{path} is not a file, or a broken link; remove it")
    return found


def refuse_link(folder: Path) -> None:
    """Stops at a link to a folder.

    Raises:
        UserError: it is one.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to a folder, in which DVC does not notice changes; copy the folder there")


def below(folder: Path) -> list[Path]:
    """Lists all files in a folder and its subfolders, in the order of their paths.

    Raises:
        UserError: see `entries`.
    """
    found: list[Path] = []
    for path in entries(folder):
        found += below(path) if path.is_dir() else [path]
    return found


def lines(path: Path, remedy: str) -> list[str]:
    """The lines of a text file without those that are empty.

    Raises:
        UserError: it is missing, larger than 16 MiB or not UTF-8.
    """
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise UserError(f"{path} is larger than {LARGEST_LIST >> 20} MiB; {remedy}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; {remedy}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def samples(root: Path, labeled: Iterable[tuple[Path, int]], fitted: Fitted) -> Iterator[Sample]:
    """Reads image files one at a time.

    Args:
        root: folder that their names are told from.
        labeled: each file and its label.
        fitted: how the images become squares.

    Raises:
        UserError: a file is missing or cannot be read as an image.
    """
    for key, (path, label) in enumerate(labeled):
        if not path.is_file():
            raise UserError(f"{path} is missing; complete {root}")
        yield Sample(key, fitted.read(path), label, {"source_index": key, "file": str(path.relative_to(root))})
