"""Noticing a training that diverged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from refine.core.errors import UserError


class Guard:
    """Notices a loss that is not finite, without waiting for the device at every step."""

    def __init__(self, where: str, remedy: str) -> None:
        self._where = where
        self._remedy = remedy
        self._first = torch.zeros(2)

    def note(self, loss: Tensor, number: int) -> None:
        """Takes down a step's loss."""
        now = torch.stack((loss.detach().float(), torch.full((), float(number), device=loss.device)))
        before = self._first.to(loss.device)
        self._first = torch.where(before[0].isfinite(), now, before)

    def look(self) -> None:
        """Waits for the device and looks.

        Raises:
            UserError: a loss was not finite.
        """
        value, number = self._first.tolist()
        if not math.isfinite(value):
            raise UserError(f"the loss became {value} in step {number:.0f} of {self._where}; {self._remedy}")
