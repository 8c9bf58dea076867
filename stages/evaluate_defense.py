"""Stage evaluate-defense@NAME: the bare classifier and a further defense on all test images."""

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.evaluation.params import EvaluateParams

NAME = sys.argv[1]


def evaluate_defense(machine: Machine) -> dict[str, Any]:
    """Reads `evaluate`; writes metrics, diagnostics and plots, and ends with a table on the terminal."""
    params = ParamsFile(Path("params.yaml")).section("evaluate", EvaluateParams)

    from refine.evaluation.evaluate import Models, Outputs
    from refine.evaluation.stage import measure_all

    models = Models(Path("models/backdoor"), Path("models/defenses") / NAME, NAME)
    metrics = Path("metrics")
    outputs = Outputs(metrics, metrics / f"diagnostics/{NAME}.json", metrics / "plots" / NAME, bare=False)
    return measure_all(params, Path("data/raw/test"), Path("data/poisoned/test"), models, outputs, machine)


if __name__ == "__main__":
    run(f"evaluate-defense@{NAME}", evaluate_defense, Path("metrics/runtime"), Path("metrics") / f"{NAME}.json")
