"""Figures in plain words, for readers who do not know the methods."""

from __future__ import annotations

from collections.abc import Sequence

from refine.evaluation.metrics import interval


def percent(share: float) -> str:
    """A share, 0 to 1, with one decimal."""
    return f"{100 * share:.1f} %"


def rate(hits: int, count: int) -> str:
    """So many of so many, with the 95 % interval."""
    low, high = interval(hits / count, count)
    return f"{percent(hits / count)} of {count:,} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
