"""The work of the stages that evaluate: from folders to files, and a table on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.evaluation.evaluate import Models, Outputs, evaluate
from refine.evaluation.params import EvaluateParams
from refine.evaluation.table import render
from refine.evaluation.test_sets import open_tests
from refine.models.device import compute


def measure_all(
    params: EvaluateParams, clean: Path, triggered: Path, models: Models, outputs: Outputs, machine: Machine
) -> dict[str, Any]:
    """Evaluates a defense on folders of shards and prints the table.

    Returns:
        How it was computed, for the runtime record.
    """
    resolved = compute(machine)
    tests = open_tests(clean, triggered, machine)
    measured = evaluate(params, tests, models, resolved, outputs)
    sys.stdout.write(render(measured.figures, measured.diagnostics, measured.titles) + "\n")
    return resolved.runtime
