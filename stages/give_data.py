"""Stage give-data@NAME: what the defender of a further defense is given, its settings and the images it may see."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.registry import DEFENSES, component
from refine.core.stage import run
from refine.defending.params import DefenseDataParams, settings
from refine.poisoning.params import PoisonDatasetParams

NAME = sys.argv[1]
OUT = Path("data/given") / NAME


def give_data(machine: Machine) -> dict[str, Any]:
    """Reads `defense_data`, `poison_dataset` and the defense's settings; writes `data/given/NAME`."""
    file = ParamsFile(Path("params.yaml"))
    data = file.section("defense_data", DefenseDataParams)
    share = file.section("poison_dataset", PoisonDatasetParams).held_out
    own = settings(file, NAME)

    from refine.defending.given import give

    regime = component(DEFENSES, NAME, "defenses").Defended.regime
    sources = {
        "raw": Path("data/raw/train"),
        "poisoned": Path("data/poisoned/train"),
        "defender": Path("data/poisoned/defender"),
        "split": Path("data/split"),
    }
    return {"images": give(NAME, regime, own, data, sources, OUT, share, machine).images}


if __name__ == "__main__":
    run(f"give-data@{NAME}", give_data, Path("metrics/runtime"), OUT / "given.json")
