"""Stage download: the data set named in the parameters, verified, as webdataset shards."""

from pathlib import Path
from typing import Any

from refine.data.download import write_splits
from refine.data.source import Source
from refine.params.chosen import chosen
from refine.params.download import DownloadParams
from refine.params.reading import ParamsFile
from refine.system.machine import machine
from refine.system.stage import run


def download() -> dict[str, Any]:
    """Reads `download` and the chosen source's settings; writes `data/raw/train` and `data/raw/test`."""
    file = ParamsFile(Path("params.yaml"))
    params = file.section("download", DownloadParams)
    module = chosen("refine.data.sources", params.source, "download.source")
    settings = file.section(f"sources.{params.source}", module.Params)
    offered = Source(machine().mirror, own_images=Path("data/own/images"), cache=Path("data/.cache"))
    splits = module.open_source(settings, offered)
    write_splits(splits, params.source, Path("data/raw/train"), Path("data/raw/test"), params.samples_per_shard)
    return {"images": sum(splits.sizes)}


if __name__ == "__main__":
    run("download", download, Path("data/raw/train/manifest.json"))
