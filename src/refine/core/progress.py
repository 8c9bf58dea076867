"""Progress bars, shown on terminals only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from refine.core.launch import rank

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yields the items, with a progress bar if stderr is a terminal; of several processes only the first shows it."""
    quiet = rank() > 0 or not sys.stderr.isatty()
    yield from tqdm(items, desc=what, total=total, unit=unit, leave=False, disable=quiet)
