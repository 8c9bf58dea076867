"""Cells of tables: figures of a recorded run, without defense → with it."""

from __future__ import annotations

import json
from typing import Any

from refine_lab.runs.recorded import Run

NONE = "-"
FLOOR_TRIGGERED = "floor with trigger"
_FIGURES = {
    "BA": "benign_accuracy",
    "ASR": "attack_success_rate",
    "floor": "asr_floor_clean",
    FLOOR_TRIGGERED: "asr_floor_triggered",
    "robust accuracy": "robust_accuracy",
}
_WITH_INTERVAL = ("benign_accuracy", "attack_success_rate", "robust_accuracy")


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"


def figures(run: Run) -> dict[str, str]:
    """A cell for each figure, with the interval of the defended classifier's behind those that a run is judged by."""
    cells = {column: _both(run, name) for column, name in _FIGURES.items()}
    rating = run.after.get("der")
    return {**cells, "DER": NONE if rating is None else f"{rating:.3f}"}


def settings(changes: dict[str, Any]) -> list[str]:
    """Parameters as somebody would type them."""
    return [f"`{name}: {value if isinstance(value, str) else json.dumps(value)}`" for name, value in changes.items()]


def _both(run: Run, name: str) -> str:
    values = [run.figure(system, name) for system in run.figures]
    if all(value is None for value in values):
        return NONE
    shown = " → ".join(NONE if value is None else percent(value) for value in values)
    return f"{shown} {_interval(run, name)}" if name in _WITH_INTERVAL else shown


def _interval(run: Run, name: str) -> str:
    low, high = run.after["interval_95"][name]
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
