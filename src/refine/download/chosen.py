"""Writing the images of the source that a parameter names."""

from __future__ import annotations

from pathlib import Path

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.registry import SOURCES, component
from refine.download.download import write_splits
from refine.download.indexing import write_indexes
from refine.download.params import DownloadParams
from refine.download.source import Elsewhere, Source


def write_chosen(
    file: ParamsFile, source: str, parameter: str, train: Path, test: Path | None, machine: Machine
) -> int:
    """Writes a data set as shards, or as an index of shards that stay where they are.

    Args:
        file: with the settings of the source, and with `download`.
        source: its name.
        parameter: that names it, for messages.
        train: folder for the training split.
        test: for the test split; None where that is not wanted.
        machine: its settings.

    Returns:
        Number of images.

    Raises:
        UserError: there is no such source, its settings are wrong, or an image cannot be read.
    """
    params = file.section("download", DownloadParams)
    module = component(SOURCES, source, parameter)
    settings = file.component("sources", source, module.Params)
    offered = Source(machine.mirror, own_images=Path("data/own/images"), cache=Path("data/.cache"))
    found = module.open_source(settings, offered)
    if isinstance(found, Elsewhere):
        return write_indexes(found, source, train, test, machine)
    return write_splits(found, source, train, test, params.samples_per_shard)
