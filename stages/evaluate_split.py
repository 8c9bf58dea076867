"""Stage evaluate-split@NAME: a split of the training set against what is really poisoned."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.stage import run

NAME = sys.argv[1]
METRICS = Path("metrics/splits") / f"{NAME}.json"


def evaluate_split(machine: Machine) -> dict[str, Any]:
    """Writes `metrics/splits/NAME.json` and `metrics/plots/splits/NAME`."""
    from refine.splitting.evaluate import evaluate_split

    plots = Path("metrics/plots/splits") / NAME
    return evaluate_split(Path("data/split") / NAME, Path("data/poisoned/train"), METRICS, plots, machine)


if __name__ == "__main__":
    run(f"evaluate-split@{NAME}", evaluate_split, Path("metrics/runtime"), METRICS)
