"""Shards that lie elsewhere: fetched through fsspec, compared with their sum, and kept as long as there is room.

What is kept lies in `data/.cache/shards` under its SHA-256, so that nothing else is ever taken for it. What was used
longest ago is removed when all of it takes more than REFINE_CACHE.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.core.outside import first_line

KEPT = Path("data/.cache/shards")
_ATTEMPTS = 3
_PACKAGES = {"az": "adlfs", "gs": "gcsfs", "s3": "s3fs"}
_REMEDY = "if it was changed on purpose, index it again by `dvc repro -f download`"


def content(address: str, sha256: str, machine: Machine) -> bytes:
    """The bytes of a shard, after comparing their sum.

    Args:
        address: a URL, or a path from the folder of the project.
        sha256: expected.
        machine: says where the project is, and how much may be kept.

    Raises:
        UserError: it cannot be read, or is another one.
    """
    if not remote(address):
        data = fetched(address, machine)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"{address} is not what was indexed (its sha256 differs); {_REMEDY}")
        return data
    place = machine.root / KEPT / sha256
    data = _kept(place)
    if hashlib.sha256(data).hexdigest() == sha256:
        return data
    data = fetched(address, machine)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{address} is not what was indexed (its sha256 differs); {_REMEDY}")
    keep(data, sha256, machine)
    return data


def remote(address: str) -> bool:
    """Whether an address is a URL."""
    return "://" in address


def fetched(address: str, machine: Machine) -> bytes:
    """The bytes at an address, whatever they are.

    Raises:
        UserError: they cannot be read.
    """
    if not remote(address):
        try:
            return (machine.root / address).read_bytes()
        except OSError as error:
            raise UserError(f"{address} cannot be read ({error.strerror}); bring it back, or {_REMEDY}") from None
    problem: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _fetch(address)
        except ImportError:
            scheme = address.partition("://")[0]
            package = _PACKAGES.get(scheme, "fsspec")
            raise UserError(f"addresses with {scheme}:// need the package {package}; `pip install {package}`") from None
        except (FileNotFoundError, PermissionError) as error:
            problem = error
            break
        except Exception as error:  # noqa: BLE001 (each library behind fsspec has errors of its own)
            problem = error
    assert problem is not None  # noqa: S101 (one of the attempts failed)
    raise UserError(
        f"{address} cannot be read ({type(problem).__name__}: {first_line(problem)}); check the address, the "
        "connection and your credentials, and run again: what was fetched before is kept"
    )


def keep(data: bytes, sha256: str, machine: Machine) -> None:
    """Keeps the bytes of a shard, and removes others where that takes too much room."""
    limit, folder = machine.cache << 20, machine.root / KEPT
    if len(data) > limit:
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{sha256}.{os.getpid()}.partial"
    try:
        part.write_bytes(data)
        part.replace(folder / sha256)
    finally:
        part.unlink(missing_ok=True)
    _make_room(folder, limit)


def _make_room(folder: Path, limit: int) -> None:
    found = []
    for path in folder.iterdir():
        try:
            about = path.stat()
        except FileNotFoundError:  # another process was faster
            continue
        found.append((about.st_mtime_ns, path, about.st_size))
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


_SYSTEMS: dict[tuple[int, str], Any] = {}
"""File systems by process and scheme: their connections do not survive a fork."""


def _fetch(address: str) -> bytes:
    import fsspec

    scheme = address.partition("://")[0]
    known = os.getpid(), scheme
    if known not in _SYSTEMS:
        _SYSTEMS[known] = fsspec.filesystem(scheme, skip_instance_cache=True)
    system = _SYSTEMS[known]
    data: bytes = system.cat_file(system._strip_protocol(address))
    return data
