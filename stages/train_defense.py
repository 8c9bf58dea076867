"""Stage train-defense@NAME: a further defense for the classifier, from what its defender is given."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.stage import run

NAME = sys.argv[1]
OUT = Path("models/defenses") / NAME


def train_defense(machine: Machine) -> dict[str, Any]:
    """Writes `models/defenses/NAME`."""
    from refine.defending import train
    from refine.models.device import compute

    resolved = compute(machine)
    train.train_defense(NAME, Path("data/given") / NAME, Path("models/backdoor"), resolved, OUT)
    return resolved.runtime


if __name__ == "__main__":
    run(f"train-defense@{NAME}", train_defense, Path("metrics/runtime"), OUT / "card.json")
