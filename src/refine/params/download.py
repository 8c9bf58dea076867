"""Parameters of the stage download."""

from __future__ import annotations

from refine.params.bounds import SamplesPerShard
from refine.params.reading import Section


class DownloadParams(Section):
    """Attributes:
    source: name of the data set, a file of `src/refine/data/sources`; its settings stand under `sources`.
    samples_per_shard: images in one shard.
    """

    source: str
    samples_per_shard: SamplesPerShard = 1000
