"""Stage evaluate: the bare and the defended classifier on all test images, in numbers, curves and pictures."""

import sys
from pathlib import Path
from typing import Any

from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.evaluation.params import EvaluateParams


def evaluate() -> dict[str, Any]:
    """Reads `evaluate`; writes `metrics/evaluate.json` and `metrics/plots`, and ends with a table on the terminal."""
    params = ParamsFile(Path("params.yaml")).section("evaluate", EvaluateParams)

    from refine.evaluation.evaluate import evaluate as measure_all
    from refine.evaluation.table import render
    from refine.evaluation.test_sets import TestSets
    from refine.models.device import compute
    from refine.shards.reading.reader import read_split

    resolved = compute()
    tests = TestSets(read_split(Path("data/raw/test")), read_split(Path("data/poisoned/test")))
    models = (Path("models/backdoor"), Path("models/refine"))
    figures = measure_all(params, tests, models, resolved, Path("metrics/evaluate.json"), Path("metrics/plots"))
    sys.stdout.write(render(figures) + "\n")
    return resolved.facts


if __name__ == "__main__":
    run("evaluate", evaluate, Path("metrics/evaluate.json"))
