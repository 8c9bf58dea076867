"""Stage split-samples@NAME: the poisoned training set in groups that look clean, uncertain and poisoned."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.models.architecture import Architecture
from refine.splitting.params import settings

NAME = sys.argv[1]
IMAGES = Path("data/poisoned/train")
OUT = Path("data/split") / NAME
INPUTS = (Path(__file__), IMAGES)


def split_samples(machine: Machine) -> dict[str, Any]:
    """Reads the split's settings and `train_backdoor.network`; writes `data/split/NAME`."""
    file = ParamsFile(Path("params.yaml"))
    own, network = settings(file, NAME), file.section("train_backdoor.network", Architecture)

    from refine.models.device import compute
    from refine.splitting.protocol import Task
    from refine.splitting.split import split_samples
    from refine.training.checkpoint import checkpoints

    resolved = compute(machine)
    params = {"split": NAME, "settings": own.model_dump(), "network": network.model_dump()}
    precision = resolved.precision("auto")
    scratch = machine.root / ".scratch"
    with checkpoints(scratch, f"split-samples@{NAME}", params, precision, INPUTS, resolved) as kept:
        split_samples(NAME, Task(own, IMAGES, network, resolved, kept), OUT)
    return {**resolved.runtime, "earlier_seconds": kept.clock.earlier if kept else 0.0}


if __name__ == "__main__":
    run(f"split-samples@{NAME}", split_samples, Path("metrics/runtime"), OUT / "split.json")
