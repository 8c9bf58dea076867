"""Bounds shared by parameters and by the files written from them, so that readers accept what parameters allow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST_SIDE = 1024
"""Largest height and width of an image, in pixels."""
MOST_CLASSES = 100_000
MOST_SHARDS = 100_000
"""In one folder of shards."""
MOST_SNAPSHOTS = 1000
"""Of one training; each is a file of weights that is evaluated."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
PixelCount = Annotated[int, Field(ge=0, le=LARGEST_SIDE)]
"""A length along one side of an image, such as a margin or a shift."""
Label = Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
SamplesPerShard = Annotated[int, Field(ge=1, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
"""Also the default size of the shuffle buffer."""
ShuffleBuffer = Annotated[int, Field(ge=1, le=100_000_000)]
"""Enough for all images of the largest labeled data sets."""
Epochs = Annotated[int, Field(ge=1, le=999_999)]
"""At most six digits: checkpoint names are padded to six, so that they sort by epoch."""
AttackSteps = Annotated[int, Field(ge=0, le=10_000)]
"""Steps of a gradient ascent on an image."""
Width = Annotated[int, Field(ge=8, le=1024)]
"""Channels of a network's first stage. Fewer than 8 crash oneDNN's channels-last convolutions on some processors (torch
2.15, AVX2). More than 1024 do not fit into the memory of any device."""
UNetWidth = Annotated[Width, Field(multiple_of=2)]
Mean = Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
"""Mean of each channel, for pixels in [0, 1]."""
Std = Annotated[list[Annotated[float, Field(ge=1e-3, le=1000)]], Field(min_length=3, max_length=3)]
"""Standard deviation of each channel, for pixels in [0, 1]. Smaller values would normalize pixels to numbers so large
that networks overflow."""
