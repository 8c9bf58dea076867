"""Settings of the network that learns in few epochs."""

from __future__ import annotations

from typing import Literal

from refine.core.bounds import Width
from refine.models.architecture import Architecture


class Params(Architecture):
    """Attributes:
    width: channels of its first block; 64 in the paper.
    """

    name: Literal["airbench"] = "airbench"
    width: Width = 64
