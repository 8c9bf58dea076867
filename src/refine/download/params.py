"""Parameters of the stage download."""

from __future__ import annotations

from refine.core.bounds import SamplesPerShard
from refine.core.params import Section


class DownloadParams(Section):
    """Attributes:
    source: name of the data set, a file of `src/refine/sources`; its settings stand under `sources`.
    samples_per_shard: images in one shard.
    """

    source: str
    samples_per_shard: SamplesPerShard = 1000
