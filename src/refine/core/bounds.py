"""Bounds that parameters share with the files made under them: what a parameter takes, a reader takes, and no more."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST_SIDE = 1024
"""Height and width of an image, in pixels."""
MOST_CLASSES = 100_000
MOST_SHARDS = 100_000
"""In one folder."""
MOST_SNAPSHOTS = 1000
"""Of a training; each is a file of weights, and evaluated."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
PixelCount = Annotated[int, Field(ge=0, le=LARGEST_SIDE)]
"""Along a side, such as a margin or a shift."""
Label = Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
SamplesPerShard = Annotated[int, Field(ge=1, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
"""As many images as the buffer holds that they are shuffled in, unless it is set."""
ShuffleBuffer = Annotated[int, Field(ge=1, le=100_000_000)]
"""All images of the largest data sets with labels."""
Epochs = Annotated[int, Field(ge=1, le=999_999)]
"""As many digits as there are in the names of checkpoints, whose order is that of their names."""
AttackSteps = Annotated[int, Field(ge=0, le=10_000)]
"""Of a gradient ascent on an image, whose values have 256 levels."""
Width = Annotated[int, Field(ge=8, le=1024)]
"""Channels of a network's first stage; fewer than 8 crash oneDNN's channels-last convolutions on some processors (torch
2.15, AVX2), and more need memory that no device has."""
UNetWidth = Annotated[Width, Field(multiple_of=2)]
Mean = Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
"""Of each channel, for pixels in [0, 1]."""
Std = Annotated[list[Annotated[float, Field(ge=1e-3, le=1000)]], Field(min_length=3, max_length=3)]
"""Likewise; a smaller one would make numbers out of pixels that networks overflow on."""
