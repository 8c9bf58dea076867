"""Parameters of the stage download."""

from __future__ import annotations

from refine.core.bounds import SamplesPerShard
from refine.core.params import Section


class DownloadParams(Section):
    """Attributes:
    source: the data set, a file in `src/refine/sources`; its settings are under `sources`.
    samples_per_shard: images per shard.
    """

    source: str
    samples_per_shard: SamplesPerShard = 1000
