"""Checks that a folder of shards is what its manifest says, and no shard of it is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from refine.core.documents import validated
from refine.core.errors import UserError
from refine.core.files import read_json, sha256_of
from refine.shards.format.index import LABEL_BYTES, LABELS, Index
from refine.shards.format.manifest import NAME, Manifest, Overlay, Shard

_LEAST_FILE = 2 * 512
"""Smallest size of a file in a shard, in bytes: a header and one block; a sample has three, without a label two."""


def described(folder: Path) -> Manifest | Overlay | Index:
    """What the manifest of a folder says.

    Raises:
        UserError: it is missing, damaged or inconsistent.
    """
    path, remedy = folder / NAME, _remedy(folder)
    content = read_json(path, remedy)
    if "base" in content:
        return validated(path, content, Overlay, remedy)
    if "preparation" in content:
        return validated(path, content, Index, remedy)
    return validated(path, content, Manifest, remedy)


def base_of(folder: Path, overlay: Overlay) -> Path:
    """The folder that an overlay changes.

    Raises:
        UserError: it is missing, or is not the one that the overlay was made for.
    """
    base = _beside(folder, overlay)
    path = base / NAME
    try:
        there = path.is_file()
    except OSError:  # such as a name that is too long
        there = False
    if not there or sha256_of(path) != overlay.base.sha256:
        what = "is another one now" if there else "is missing"
        raise UserError(
            f"{folder} holds the changes to {base}, which {what}; run `dvc repro`, or `dvc checkout` for both"
        )
    return base


def read(folder: Path) -> Manifest:
    """The manifest of a folder: of an overlay, that of the result; of an index, that of the shards elsewhere.

    Raises:
        UserError: it is missing, damaged or inconsistent.
    """
    return _merged(folder, described)


def complete(folder: Path) -> Manifest:
    """Reads a folder's manifest and checks that exactly its shards are there, and those of its base.

    Raises:
        UserError: a shard is missing or too small for its samples, or the folder holds one that is not in the manifest.
    """
    return _merged(folder, _checked)


def _checked(folder: Path) -> Manifest | Overlay | Index:
    """What the manifest of a folder says, once exactly its own files are there."""
    said = described(folder)
    here = [] if isinstance(said, Index) else said.shards
    for shard in here:
        path = folder / shard.name
        if not path.is_file():
            raise UserError(f"{path} is missing; {_remedy(folder)}")
        if path.stat().st_size < shard.samples * _LEAST_FILE * (3 if said.labeled else 2):
            raise UserError(f"{path} is too small for the {shard.samples} samples of {NAME}; {_remedy(folder)}")
    unlisted = {path.name for path in folder.glob("*.tar")} - {shard.name for shard in here}
    if unlisted:
        raise UserError(f"{folder / min(unlisted)} is not in {NAME}; {_remedy(folder)}")
    if isinstance(said, Index):
        _refuse_missing_labels(folder, said)
    return said


def _merged(folder: Path, look: Callable[[Path], Manifest | Overlay | Index]) -> Manifest:
    """The manifest of what a folder stands for.

    Args:
        folder: of any kind.
        look: gives what the manifest of a folder says.
    """
    said = look(folder)
    if not isinstance(said, Overlay):
        return _whole(said)
    below = look(base_of(folder, said))
    try:
        if isinstance(below, Overlay):
            raise ValueError("its base is an overlay itself")  # noqa: TRY301, TRY004 (told as what else does not fit)
        return said.over(_whole(below))
    except ValueError as error:
        raise UserError(f"{folder / NAME} cannot be used ({error}); {_remedy(folder)}") from None


def content(folder: Path, shard: Shard) -> bytes:
    """The bytes of a shard, after checking its SHA-256.

    Raises:
        UserError: the shard cannot be read, or its SHA-256 is not the one in the manifest.
    """
    path = folder / shard.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can no longer be read ({error.strerror}); {_remedy(folder)}") from None
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise UserError(f"{path} is damaged: its sha256 is not the one in {NAME}; {_remedy(folder)}")
    return data


def _refuse_missing_labels(folder: Path, index: Index) -> None:
    """Stops before memory is allocated for samples that nothing in the folder stands for."""
    path = folder / LABELS
    if not path.is_file() or path.stat().st_size < LABEL_BYTES * sum(shard.samples for shard in index.shards):
        raise UserError(f"{path} is missing, or too small for the samples of {NAME}; {_remedy(folder)}")


def _whole(said: Manifest | Index) -> Manifest:
    return said.manifest if isinstance(said, Index) else said


def _beside(folder: Path, overlay: Overlay) -> Path:
    """Without `..` where that is possible, for messages."""
    place = folder
    steps = overlay.base.folder.split("/")
    while steps and steps[0] == ".." and place.name not in ("", ".."):
        place, steps = place.parent, steps[1:]
    return place.joinpath(*steps)


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run `dvc repro` (or `dvc checkout`) to get it back"
