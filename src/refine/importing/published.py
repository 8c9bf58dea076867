"""How the library of a network prepares and normalizes images. An architecture of a library has a further module,
`published.py`, whose `published(params)` reads that from the library's own configuration; nothing is downloaded.
"""

from __future__ import annotations

from typing import cast

from refine.core.registry import ARCHITECTURES, part
from refine.models.architecture import Architecture, Published


def published(architecture: Architecture) -> Published | None:
    """What the library says of a network; None where it says nothing, or the network is ours.

    Raises:
        UserError: the library is not installed.
    """
    module = part(ARCHITECTURES, architecture.name, "published")
    return cast("Published | None", module.published(architecture)) if module else None
