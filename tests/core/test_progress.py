"""Progress passes things on, and is seen by one person at most."""

from __future__ import annotations

import io
import sys

import pytest

from refine.core.progress import progress


class Terminal(io.StringIO):
    """Where somebody watches."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("rank", "place", "seen"),
    [(None, Terminal(), True), ("0", Terminal(), True), ("1", Terminal(), False), (None, io.StringIO(), False)],
)
def test_a_bar_is_for_the_first_process_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, place: io.StringIO, seen: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "stderr", place)
    assert list(progress(iter(range(5)), "some work", 5, "shard")) == list(range(5))
    assert ("some work" in place.getvalue()) == seen
    assert seen or place.getvalue() == ""
