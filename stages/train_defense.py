"""Stage train-defense@NAME: a further defense for the classifier, from what its defender is given."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.stage import run

NAME = sys.argv[1]
GIVEN = Path("data/given") / NAME
CLASSIFIER = Path("models/backdoor")
OUT = Path("models/defenses") / NAME
INPUTS = (Path(__file__), GIVEN, CLASSIFIER)


def train_defense(machine: Machine) -> dict[str, Any]:
    """Writes `models/defenses/NAME`."""
    from refine.core.registry import DEFENSES, TRAINING, part
    from refine.defending import train
    from refine.models.device import compute
    from refine.training.checkpoint import checkpoints

    part(DEFENSES, NAME, TRAINING)  # before `checkpoints`, whose key covers the code that is loaded
    resolved = compute(machine)
    precision = resolved.precision("auto")
    scratch = machine.root / ".scratch"
    with checkpoints(scratch, f"train-defense@{NAME}", {"defense": NAME}, precision, INPUTS, resolved) as kept:
        train.train_defense(NAME, GIVEN, CLASSIFIER, resolved, OUT, kept)
    return {**resolved.runtime, "earlier_seconds": kept.clock.earlier if kept else 0.0}


if __name__ == "__main__":
    run(f"train-defense@{NAME}", train_defense, Path("metrics/runtime"), OUT / "card.json")
