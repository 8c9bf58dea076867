"""Downloading a published file: resumable, checked, and moved into place only when complete."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from refine.core.errors import UserError

_CHUNK = 1 << 18
_TIMEOUT_S = 60
_ATTEMPTS = 5


@dataclass(frozen=True)
class Remote:
    """A published file: its name, official URL, size in bytes, MD5 and SHA-256 (None where only the MD5 is known)."""

    name: str
    url: str
    size: int
    md5: str
    sha256: str | None = None


def fetch(remote: Remote, mirror: str | None, cache: Path) -> Path:
    """Downloads a file, unless a local copy exists, and checks its size, MD5 and SHA-256.

    Args:
        remote: the file.
        mirror: a folder or URL to take the file from, instead of its official URL.
        cache: folder for downloads; an incomplete one (`NAME.part`) is resumed by the next call.

    Raises:
        UserError: the file cannot be reached, or is not the published one.

    Returns:
        Path of the local file.
    """
    if mirror is not None and "://" not in mirror:
        path = Path(mirror) / remote.name
        if not path.is_file():
            raise UserError(f"{path} is missing; put {remote.name} there or unset REFINE_MIRROR")
        _check(path, remote, f"replace it or unset REFINE_MIRROR to download {remote.url}")
        return path
    whole = cache / remote.name
    if not whole.is_file():
        url = remote.url if mirror is None else f"{mirror.rstrip('/')}/{remote.name}"
        part = cache / f"{remote.name}.part"
        cache.mkdir(parents=True, exist_ok=True)
        with _alone_in(cache):
            if not whole.is_file():
                _complete(url, part, remote)
                part.replace(whole)
    else:
        _check(whole, remote, f"remove {whole} and run `dvc repro` again")
    return whole


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process downloads to a folder, which runs of a list share."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _complete(url: str, part: Path, remote: Remote) -> None:
    """Downloads a file and checks it; what is not the published one is removed."""
    _download(url, part, remote)
    try:
        _check(part, remote, f"it was removed, run `dvc repro` again to download {url} again")
    except UserError:
        part.unlink()
        raise


def _check(path: Path, remote: Remote, remedy: str) -> None:
    md5, sha256 = hashlib.md5(), hashlib.sha256()  # noqa: S324 (as published; sha256 is what we trust, if known)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    trusted = remote.sha256 or sha256.hexdigest()
    if (path.stat().st_size, md5.hexdigest(), sha256.hexdigest()) != (remote.size, remote.md5, trusted):
        raise UserError(f"{path} is not the published {remote.name} (size, md5 or sha256 differ); {remedy}")


def _download(url: str, part: Path, remote: Remote) -> None:
    """Appends to `part` until it has the published size; if the network fails, what has arrived is kept."""
    problem: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            with part.open("ab") as file:
                if file.tell() > remote.size:
                    _empty(file)
                if file.tell() == remote.size:
                    return
                _append(url, file, remote)
                if file.tell() >= remote.size:
                    return
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = error
    kept = part.stat().st_size
    reason = getattr(problem, "reason", problem) or "the connection was cut off"
    raise UserError(
        f"{url} could not be downloaded ({reason}); {kept:,} of {remote.size:,} bytes are kept and the next run "
        "resumes from there; or set REFINE_MIRROR to a folder or URL with the file"
    )


def _append(url: str, file: BinaryIO, remote: Remote) -> None:
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        if start and answer.status != 206:
            _empty(file)
            start = 0
        with tqdm(
            desc=remote.name, total=remote.size, initial=start, unit="B", unit_scale=True, leave=False, disable=None
        ) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
