"""Bounds that parameters share with the files made under them: what a parameter takes, a reader takes, and no more."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST_SIDE = 1024
"""Height and width of an image, in pixels."""
MOST_CLASSES = 100_000
MOST_SHARDS = 100_000
"""In one folder."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
SamplesPerShard = Annotated[int, Field(ge=1, le=1_000_000)]
Mean = Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
"""Of each channel, for pixels in [0, 1]."""
Std = Annotated[list[Annotated[float, Field(ge=1e-3, le=1000)]], Field(min_length=3, max_length=3)]
"""Likewise; a smaller one would make numbers out of pixels that networks overflow on."""
