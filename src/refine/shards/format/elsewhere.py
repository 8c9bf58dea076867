"""Shards that lie elsewhere: fetched through fsspec, compared with their sum, and kept as long as there is room.

What is kept lies in `data/.cache/shards` under its SHA-256, so that nothing else is ever taken for it. What was used
longest ago is removed when all of it takes more than REFINE_CACHE.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.shards.format.network import read, remote

KEPT = Path("data/.cache/shards")
LARGEST = 2**31
"""Of a shard, in bytes: it is read into memory as a whole."""
_CORRECT = "bring it there, or correct the address"
_CHANGED = "bring the old one back, or index the new one by `dvc repro -f download`"
_PARTIAL = ".partial"
_DAY = 86_400

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expected:
    """What a shard was when it was indexed: its size in bytes and its SHA-256."""

    size: int
    sha256: str


def content(address: str, expected: Expected, machine: Machine) -> bytes:
    """The bytes of a shard, after comparing their sum.

    Args:
        address: a URL, or a path from the folder of the project.
        expected: size and sum.
        machine: says where the project is, and how much may be kept.

    Raises:
        UserError: it cannot be read, or is another one.
    """
    data = _kept(machine.root / KEPT / expected.sha256) if remote(address) else b""
    if hashlib.sha256(data).hexdigest() == expected.sha256:
        return data
    data = fetched(address, machine, expected.size)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != expected.sha256:
        raise UserError(f"{address} is not what was indexed (its sha256 differs); {_CHANGED}")
    if remote(address):
        keep(data, sha256, machine)
    return data


def fetched(address: str, machine: Machine, size: int | None = None) -> bytes:
    """The bytes at an address.

    Args:
        address: a URL, or a path from the folder of the project.
        machine: says where the project is.
        size: that they must have, in bytes; None: any.

    Raises:
        UserError: they cannot be read, are more than `LARGEST`, or of another size.
    """
    if remote(address):
        return read(address, lambda found: _refuse_size(address, found, size))
    return _on_disk(machine.root / address, address, size)


def _on_disk(path: Path, address: str, size: int | None) -> bytes:
    try:
        if not path.is_file():
            raise UserError(f"{address} is {'not a file' if path.exists() else 'missing'}; {_CORRECT}")
        _refuse_size(address, path.stat().st_size, size)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{address} cannot be read ({error.strerror}); {_CORRECT}") from None


def _refuse_size(address: str, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise UserError(f"{address} is not what was indexed ({found:,} bytes, not {wanted:,}); {_CHANGED}")
    if found > LARGEST:
        raise UserError(f"{address} has {found:,} bytes, more than {LARGEST:,}; cut it into smaller shards")


def keep(data: bytes, sha256: str, machine: Machine) -> None:
    """Keeps the bytes of a shard, and removes others where that takes too much room.

    Nothing depends on it, so what goes wrong is logged.
    """
    limit, folder = machine.cache << 20, machine.root / KEPT
    if len(data) > limit:
        return
    part = folder / f"{sha256}.{os.getpid()}-{threading.get_ident()}{_PARTIAL}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(folder / sha256)
        _make_room(folder, limit)
    except OSError as error:
        log.warning("a fetched shard cannot be kept in %s (%s); lower REFINE_CACHE or free some space", folder, error)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _make_room(folder: Path, limit: int) -> None:
    found = []
    for path in folder.iterdir():
        try:
            about = path.stat()
        except FileNotFoundError:  # another process was faster
            continue
        if not path.name.endswith(_PARTIAL):
            found.append((about.st_mtime_ns, path, about.st_size))
        elif about.st_mtime < time.time() - _DAY:  # of a process that was killed
            path.unlink(missing_ok=True)
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found)[:-1]:
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size


def _kept(place: Path) -> bytes:
    """What lies there, which from then on is the last used; nothing where it is not there."""
    try:
        data = place.read_bytes()
        os.utime(place)
    except OSError:
        return b""
    return data
