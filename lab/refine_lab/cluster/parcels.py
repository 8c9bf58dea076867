"""Recorded runs and their models as bytes, on their way between the process with a list and the nodes of a cluster."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from refine.core.errors import UserError
from refine.core.files import new_file, new_folder
from refine_lab.projects import CLASSIFIER, Stages, object_in
from refine_lab.runs.recorded import Run

_OBJECT = re.compile(r"^[0-9a-f]{32}(\.dir)?$")
_FOLDER = ".dir"
_FOLDER_NAME = re.compile(r"^\w[\w.-]*$")


@dataclass(frozen=True)
class Parcel:
    """Attributes:
    runs: tar archive of recorded folders.
    models: tar archive of contents of a cache; nothing where both sides have the same cache.
    """

    runs: bytes
    models: bytes = b""


def packed(folders: Iterable[Path]) -> bytes:
    """Recorded folders."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder in folders:
            tar.add(folder, arcname=folder.name)
    return content.getvalue()


def unpacked(content: bytes, home: Path, only: str | None = None) -> list[Path]:
    """Writes recorded folders below another one; nothing of them is there before all of a folder is.

    Args:
        content: the archive.
        home: takes them.
        only: what the only one is called; None: any number of any names.

    Raises:
        UserError: it holds others.
        tarfile.TarError: that is no such archive.
        OSError: they cannot be written.
    """
    found = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        members = tar.getmembers()
        names = {next(iter(PurePosixPath(member.name).parts), "") for member in members}
        strangers = {name for name in names if not _FOLDER_NAME.match(name)} if only is None else names ^ {only}
        if strangers:
            raise UserError(
                f"a node sent {min(strangers)[:100]!a} in the place of {only or 'a run'}; start the list again"
            )
        for name in sorted(names):
            with new_folder(home / name) as part:
                for member in members:
                    first, *rest = PurePosixPath(member.name).parts
                    if first == name and rest:
                        _unpack(tar, member, part, rest)
            found.append(home / name)
    return found


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, parts: list[str]) -> None:
    """Writes a member below a folder. Not by `extract`, whose filters Python has from 3.11.4 on alone."""
    if ".." in parts or not (member.isdir() or member.isfile()):
        raise tarfile.TarError(f"{member.name[:100]!a} is neither a file nor a folder below that of its run")
    path = folder.joinpath(*parts)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = tar.extractfile(member)
    path.write_bytes(file.read() if file else b"")


def models_of(run: Run, defended: bool = True) -> set[str]:
    """DVC's hashes of a run's classifier and, if wanted, of its defense, as far as they are known."""
    paths = [CLASSIFIER, *([Stages(run.defense).model] if defended else [])]
    return {found for path in paths if (found := run.output(path))}


def with_models(cache: Path, models: Iterable[str]) -> bytes:
    """What a cache holds of models, given by DVC's hashes of their folders."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in sorted({name for model in models for name in _of(cache, model)}):
            tar.add(object_in(cache, name), arcname=name)
    return content.getvalue()


def take_models(content: bytes, cache: Path) -> None:
    """Brings contents into a cache that does not have them.

    Raises:
        UserError: one is not what its name says.
    """
    if not content:
        return
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            file = tar.extractfile(member)
            inner = file.read() if file else b""
            md5, path = hashlib.md5(inner, usedforsecurity=False).hexdigest(), object_in(cache, member.name)
            if not _OBJECT.match(member.name) or md5 != member.name.removesuffix(_FOLDER):
                raise UserError(f"a node sent {member.name!a}, which is not what it is called; start the list again")
            if not path.exists():
                with new_file(path) as part:
                    part.write_bytes(inner)


def _of(cache: Path, model: str) -> Iterable[str]:
    """The hashes of all that a folder is made of, itself first; none where the cache lacks something."""
    listing = object_in(cache, model)
    if not model.endswith(_FOLDER) or not listing.is_file():
        return []
    names = [model, *(entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8")))]
    return names if all(object_in(cache, name).is_file() for name in names) else []
