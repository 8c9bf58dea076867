"""The time of a training, over all processes that computed it."""

from __future__ import annotations

import time


class Clock:
    """How long a run has been computed, by this process and those that were interrupted.

    Attributes:
        earlier: seconds of the others, up to the newest checkpoint that was read.
    """

    def __init__(self) -> None:
        self.earlier = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self.earlier + time.monotonic() - self._began
