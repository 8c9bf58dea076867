"""Stage evaluate: the bare classifier and REFINE on all test images, in numbers, curves and pictures."""

from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.evaluation.params import EvaluateParams


def evaluate(machine: Machine) -> dict[str, Any]:
    """Reads `evaluate`; writes metrics, diagnostics and plots, and ends with a table on the terminal."""
    params = ParamsFile(Path("params.yaml")).section("evaluate", EvaluateParams)

    from refine.evaluation.evaluate import Models, Outputs
    from refine.evaluation.stage import measure_all

    models = Models(Path("models/backdoor"), Path("models/refine"), "refine")
    metrics = Path("metrics")
    outputs = Outputs(metrics, metrics / "diagnostics/refine.json", metrics / "plots/refine", bare=True)
    return measure_all(params, Path("data/raw/test"), Path("data/poisoned/test"), models, outputs, machine)


if __name__ == "__main__":
    run("evaluate", evaluate, Path("metrics/runtime"), Path("metrics/refine.json"))
