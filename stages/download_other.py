"""Stage download-other@NAME: the training images of a source, for a defender who has none of the data set's own."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.download.chosen import write_chosen

NAME = sys.argv[1]
OUT = Path("data/other") / NAME


def download_other(machine: Machine) -> dict[str, Any]:
    """Reads `download` and the source's settings; writes `data/other/NAME`."""
    file = ParamsFile(Path("params.yaml"))
    return {"images": write_chosen(file, NAME, "other_images", OUT, None, machine)}


if __name__ == "__main__":
    run(f"download-other@{NAME}", download_other, Path("metrics/runtime"), OUT / "manifest.json")
