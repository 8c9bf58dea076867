"""Progress bars that stay silent where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from refine.core.launch import rank

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Passes the items on, with a bar on a terminal and without a word elsewhere; of several processes, one has it."""
    quiet = rank() > 0 or not sys.stderr.isatty()
    yield from tqdm(items, desc=what, total=total, unit=unit, leave=False, disable=quiet)
