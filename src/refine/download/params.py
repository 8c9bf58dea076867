"""Parameters of the stage download."""

from __future__ import annotations

from refine.core.bounds import SamplesPerShard
from refine.core.errors import UserError
from refine.core.params import ParamsFile, Section
from refine.core.registry import SOURCES, names


class DownloadParams(Section):
    """Attributes:
    source: the data set, a file in `src/refine/sources`; its settings are under `sources`.
    samples_per_shard: images per shard.
    """

    source: str
    samples_per_shard: SamplesPerShard = 1000


def other_images(file: ParamsFile) -> str | None:
    """The source in `other_images`, whose images a defender without labels has instead of the data set's own.

    Raises:
        UserError: it is missing or not a list, or its source is unknown or not the only one.
    """
    listed = file.listed("other_images", names(SOURCES), "[gtsrb_subset]")
    if len(listed) > 1:
        raise UserError(f"{file.path}: other_images: {', '.join(listed)} are {len(listed)} sources; keep one")
    return listed[0] if listed else None
