"""Stage evaluate: the bare and the defended classifier on all test images, in numbers, curves and pictures."""

import sys
from pathlib import Path
from typing import Any

from refine.params.evaluate import EvaluateParams
from refine.params.reading import ParamsFile
from refine.system.stage import run


def evaluate() -> dict[str, Any]:
    """Reads `evaluate`; writes `metrics/evaluate.json` and `metrics/plots`, and ends with a table on the terminal."""
    params = ParamsFile(Path("params.yaml")).section("evaluate", EvaluateParams)

    from refine.data.reader import read_split
    from refine.evaluation.evaluate import evaluate as measure_all
    from refine.evaluation.held_out import HeldOut
    from refine.evaluation.table import render
    from refine.models.device import compute

    resolved = compute()
    tests = HeldOut(read_split(Path("data/raw/test")), read_split(Path("data/poisoned/test")))
    models = (Path("models/backdoor"), Path("models/refine"))
    figures = measure_all(params, tests, models, resolved, Path("metrics/evaluate.json"), Path("metrics/plots"))
    sys.stdout.write(render(figures) + "\n")
    return resolved.facts


if __name__ == "__main__":
    run("evaluate", evaluate, Path("metrics/evaluate.json"))
