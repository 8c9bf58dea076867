"""Errors whose cause lies outside the code (disk, memory, installation), explained in one sentence each."""

from __future__ import annotations

import errno
import re
import traceback

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_MEMORY = re.compile(
    r"not enough memory|can(?:'|no)t allocate memory|out of memory|bad_alloc|_ALLOC_FAILED|insufficient shared memory",
    re.IGNORECASE,
)
_ASKED_FOR = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


def explained(error: Exception) -> str | None:
    """One sentence on what happened and what to do about it; None for an error that may be a bug in the code."""
    if isinstance(error, OSError):
        sentence = _of_files(error)
        if sentence:
            return sentence
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and _NO_MEMORY.search(str(error))  # torch has no class for it
    ):
        return _of_memory(error)
    package = _not_loaded(error)
    if package:
        return (
            f"the package {package} cannot be loaded here ({first_line(error)}); "
            "install the project again (README) in an environment of its own"
        )
    return None


def _of_files(error: OSError) -> str | None:
    place = f" while writing {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return f"the disk is full{place} ({error.strerror}); free some space and run `dvc repro` again"
    if error.errno == errno.EROFS:
        return f"the file system is read-only{place} ({error.strerror}); work in a copy where files can be written"
    if error.errno in (errno.EACCES, errno.EPERM) and error.filename:
        return f"there is no permission for {error.filename} ({error.strerror}); give it, or work in a copy"
    return None


def _of_memory(error: Exception) -> str:
    asked = _ASKED_FOR.search(str(error))
    size = f" ({asked[1]} were asked for)" if asked else ""
    return (
        f"the memory is used up{size}; lower batch_size, let training images be streamed (a smaller REFINE_MEMORY), "
        "end other programs, or take a machine with more"
    )


def _not_loaded(error: Exception) -> str | None:
    """The third-party package whose import failed, by itself or in one of the libraries that it loads."""
    if not isinstance(error, ImportError | OSError):
        return None
    loading = [
        str(frame.f_globals.get("__name__")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    if isinstance(error, ImportError):
        loading.append(str(error.name or "").partition(".")[0])
    others = [name for name in loading if name not in ("", "refine", "__main__")]
    return others[-1] if others and loading[-1] != "refine" else None


def first_line(error: Exception) -> str:
    """What another library says, in one line of at most 200 characters, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
