"""Figures of a finished run's classifier without defense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refine.core.files import read_json
from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab import projects
from refine_lab.projects import BARE_METRICS, CLASSIFIER, Stages


def figures_without_defense(project: Path) -> dict[str, Any]:
    """Content of `metrics/no_defense.json`.

    Only the stage evaluate writes that file, and it trains REFINE first. Where a run with another defense is recorded
    without that stage, the same figures are measured here.

    Args:
        project: with a finished run.
    """
    if not projects.out_of_date(project, Stages(STAGE_OF_ITS_OWN).evaluation):
        return read_json(project / BARE_METRICS, "run `dvc repro evaluate`")

    from refine.defending.protocol.defense import NoDefense  # loads torch, as all below
    from refine.evaluation.metrics import judged, measure
    from refine.models.classifier import load
    from refine_lab.recording.measuring import bench

    classifier, _ = load(project / CLASSIFIER)
    tests = bench(project)
    shares = measure(tests.answers(NoDefense(classifier)), tests.tests.truth)
    return judged(shares, shares, tests.tests.truth)
