"""Files behind URLs, through fsspec."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import Field

from refine.core.errors import UserError
from refine.core.outside import first_line

SCHEMES = ("az", "gs", "http", "https", "s3")
WRITABLE = ("az", "gs", "s3")
_ADDRESS = re.compile(rf"^(({'|'.join(SCHEMES)})://)?[^\x00-\x20:]([^\x00-\x1f:]|:[0-9])*$")
Address = Annotated[str, Field(pattern=_ADDRESS, max_length=2000)]
"""A URL, or a path from the folder of the project. No other colon, with which libraries chain URLs of their own."""
_ATTEMPTS = 3
_PACKAGES = {"az": "adlfs", "gs": "gcsfs", "s3": "s3fs"}
_SILENCE = 60
"""Seconds without a byte after which a connection counts as broken; how long all of a file takes does not matter."""

Result = TypeVar("Result")
Put = Callable[[str, bytes], None]
"""Writes a file, by its name, where many belong."""

log = logging.getLogger(__name__)


def remote(address: str) -> bool:
    """Whether an address is a URL."""
    return "://" in address


def read(address: str, refuse_size: Callable[[int], None]) -> bytes:
    """The bytes at a URL.

    Args:
        address: the URL.
        refuse_size: stops by raising a UserError where it does not take so many; not asked where the size is not known.

    Raises:
        UserError: they cannot be read.
    """

    def work(system: Any, path: str) -> bytes:
        found = system.info(path).get("size")
        if found is not None:
            refuse_size(found)
        return bytes(system.cat_file(path))

    return _tried(address, "read", work)


@contextmanager
def new_prefix(address: str) -> Iterator[Put]:
    """Yields what writes files below a URL; those that it wrote are removed if the block ends with an error.

    Each file is there as a whole or not at all. Two processes must not write to the same URL.

    Raises:
        UserError: nothing can be written there, or something is there already.
    """
    base = address.rstrip("/")
    _refuse_unwritable(base)
    if _tried(base, "read", _anything):
        raise UserError(f"{address} is there already; name another address, or remove what is there")
    written: list[str] = []

    def put(name: str, content: bytes) -> None:
        written.append(f"{base}/{name}")
        _tried(written[-1], "written", lambda system, path: _write(system, path, content))

    try:
        yield put
    except BaseException:
        _remove(written, base)
        raise


def _refuse_unwritable(address: str) -> None:
    known = ", ".join(f"{scheme}://" for scheme in WRITABLE)
    if address.partition("://")[0] not in WRITABLE or not _ADDRESS.match(address):
        raise UserError(
            f"{address} cannot be written to; name a folder, or an address that begins with one of {known} and has no "
            "other colon"
        )


def _anything(system: Any, path: str) -> bool:
    """Whether something lies below a path other than the empty object that marks it as a folder."""
    try:
        found = system.ls(path, detail=False, refresh=True)
    except FileNotFoundError:
        return False
    return any(name.strip("/") != path.strip("/") for name in found)


def _write(system: Any, path: str, content: bytes) -> None:
    """Writes a file. An interruption is passed on after that, as its end is what removes the file again."""
    if not system.async_impl:
        system.pipe_file(path, content)
        return
    writing: Future[Any] | None = None
    try:
        writing = asyncio.run_coroutine_threadsafe(system._pipe_file(path, content), system.loop)
        writing.result()
    except KeyboardInterrupt:
        wait([writing] if writing else [])
        raise


def _remove(written: list[str], base: str) -> None:
    left = 0
    for address in written:
        try:
            system, path = _system(address)
            system.rm_file(path)
        except FileNotFoundError:
            pass
        except Exception:  # noqa: BLE001 (as in `_tried`)
            left += 1
    if left:
        log.warning("%s holds up to %d files of what was not finished, which could not be removed", base, left)


def _tried(address: str, done: str, work: Callable[[Any, str], Result]) -> Result:
    """What a file system answers, which may need several attempts.

    Args:
        address: a URL.
        done: what is not done to it where this fails.
        work: takes the file system and the path in it.

    Raises:
        UserError: no attempt succeeded.
    """
    problem: Exception | None = None
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt)
        try:
            return work(*_system(address))
        except UserError:
            raise
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
        f"{address} cannot be {done} ({type(problem).__name__}: {first_line(problem)}); check the address, the "
        "connection and your credentials, and run again"
    )


_SYSTEMS: dict[tuple[int, str], Any] = {}
"""File systems by process and scheme: their connections do not survive a fork."""


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    import fsspec

    scheme = address.partition("://")[0]
    known = os.getpid(), scheme
    if known not in _SYSTEMS:
        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            from aiohttp import ClientTimeout

            options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)}
        _SYSTEMS[known] = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    return _SYSTEMS[known], str(_SYSTEMS[known]._strip_protocol(address))
