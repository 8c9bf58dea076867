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
    return "\n".join([shown.to_string(), note, *_warning(figures)])


def _warning(figures: dict[str, Any]) -> list[str]:
    if figures.get("attack_took", True):
        return []
    asr = _text("attack_success_rate", figures["no_defence"]["attack_success_rate"])
    lines = [
        f"THE ATTACK DID NOT TAKE: its success rate without defence is {asr}, under evaluate.least_asr.",
        "A defence against an attack that does not work proves nothing. Raise the attack's rate or strength,",
        "or train the classifier longer, before you read anything into the column REFINE.",
    ]
    frame = "!" * max(len(line) for line in lines)
    return ["", frame, *lines, frame]


def _text(name: str, value: float) -> str:
    return f"{value:.4f}" if name.endswith("nll") else f"{100 * value:.2f} %"
