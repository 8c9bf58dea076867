"""Stage download: the data set named in the parameters, verified, as webdataset shards or as an index of some."""

from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.registry import SOURCES, component
from refine.core.stage import run
from refine.download.download import write_splits
from refine.download.indexing import write_indexes
from refine.download.params import DownloadParams
from refine.download.source import Elsewhere, Source


def download(machine: Machine) -> dict[str, Any]:
    """Reads `download` and the chosen source's settings; writes `data/raw/train` and `data/raw/test`."""
    file = ParamsFile(Path("params.yaml"))
    params = file.section("download", DownloadParams)
    module = component(SOURCES, params.source, "download.source")
    settings = file.component("sources", params.source, module.Params)
    offered = Source(machine.mirror, own_images=Path("data/own/images"), cache=Path("data/.cache"))
    found = module.open_source(settings, offered)
    folders = Path("data/raw/train"), Path("data/raw/test")
    if isinstance(found, Elsewhere):
        return {"images": write_indexes(found, params.source, *folders, machine)}
    return {"images": write_splits(found, params.source, *folders, params.samples_per_shard)}


if __name__ == "__main__":
    run("download", download, Path("metrics/runtime"), Path("data/raw/train/manifest.json"))
