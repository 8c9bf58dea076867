"""Stage download: the data set named in the parameters, verified, as webdataset shards or as an index of some."""

from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.download.chosen import write_chosen
from refine.download.params import DownloadParams

TRAIN, TEST = Path("data/raw/train"), Path("data/raw/test")


def download(machine: Machine) -> dict[str, Any]:
    """Reads `download` and the chosen source's settings; writes `data/raw/train` and `data/raw/test`."""
    file = ParamsFile(Path("params.yaml"))
    source = file.section("download", DownloadParams).source
    return {"images": write_chosen(file, source, "download.source", TRAIN, TEST, machine)}


if __name__ == "__main__":
    run("download", download, Path("metrics/runtime"), TRAIN / "manifest.json")
