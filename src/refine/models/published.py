"""How the library of a network prepares and normalizes images. An architecture of a library has a further module,
`published.py`, whose `published(params)` reads that from the library's own configuration; nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from refine.core.registry import ARCHITECTURES, part
from refine.models.architecture import Architecture


@dataclass(frozen=True)
class Published:
    """What is known of the input of a network.

    Attributes:
        side: of its images, in pixels.
        resize: of the shorter side before the middle is taken.
        interpolation: of that.
        keep_aspect: see `shards.format.preparation.Preparation`.
        mean: per channel, for pixels in [0, 1].
        std: per channel.
    """

    side: int
    resize: int
    interpolation: str
    keep_aspect: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def published(architecture: Architecture) -> Published | None:
    """What the library says of a network; None where it says nothing, or the network is ours.

    Raises:
        UserError: the library is not installed.
    """
    module = part(ARCHITECTURES, architecture.name, "published")
    return cast("Published | None", module.published(architecture)) if module else None
