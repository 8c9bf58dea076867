"""The table that a run ends with."""

from __future__ import annotations

from typing import Any

import pandas as pd

_ORDER = (
    "benign_accuracy",
    "attack_success_rate",
    "asr_floor",
    "robust_accuracy",
    "raw_target_hit",
    "top5_accuracy",
    "benign_nll",
)


def render(figures: dict[str, Any]) -> str:
    """One row per figure, one column per system, from the content of `metrics/evaluate.json`.

    Shares are given in percent; what is not defined has no row.
    """
    systems = {"no defence": figures["no_defence"], "REFINE": figures["refine"]}
    table = pd.DataFrame(systems).reindex([name for name in _ORDER if name in figures["no_defence"]])
    shown = table.apply(lambda row: row.map(lambda value: _text(str(row.name), value)), axis=1)
    shown.index = [str(name).replace("_", " ") for name in shown.index]
    images = figures["images"]
    note = f"{images['benign']:,} benign and {images['triggered']:,} triggered test images"
    return f"{shown.to_string()}\n{note}"


def _text(name: str, value: float) -> str:
    return f"{value:.4f}" if name.endswith("nll") else f"{100 * value:.2f} %"
