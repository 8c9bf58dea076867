"""The table that a run ends with."""

from __future__ import annotations

from typing import Any

import pandas as pd

_NAMES = {
    "benign_accuracy": "benign accuracy (BA)",
    "attack_success_rate": "attack success rate (ASR)",
    "asr_floor": "ASR floor, without trigger",
    "robust_accuracy": "robust accuracy, with trigger",
    "raw_target_hit": "raw target hit",
    "top5_accuracy": "top-5 accuracy",
    "benign_nll": "benign NLL",
}
"""What each figure is called, in the order of the rows."""

_READABLE = 0.05
"""How far the robust accuracy behind the defense may be under its benign accuracy without a word about it."""


def render(figures: dict[str, Any]) -> str:
    """One row per figure, one column per system, from the content of `metrics/evaluate.json`.

    Shares are given in percent; what is not defined has no row.
    """
    systems = {"no defense": figures["no_defense"], "REFINE": figures["refine"]}
    table = pd.DataFrame(systems).reindex([name for name in _NAMES if name in figures["no_defense"]])
    shown = table.apply(lambda row: row.map(lambda value: _text(str(row.name), value)), axis=1)
    shown.index = [_NAMES[str(name)] for name in shown.index]
    images = figures["images"]
    note = f"{images['benign']:,} benign and {images['triggered']:,} triggered test images"
    return "\n".join([shown.to_string(), note, *_misread(figures), *_warning(figures)])


def _misread(figures: dict[str, Any]) -> list[str]:
    after = figures["refine"]
    if after.get("robust_accuracy", 1.0) >= after["benign_accuracy"] - _READABLE:
        return []
    most = ", ".join(f"{each['as']} ({_text('share', each['share'])})" for each in figures["misread"]["refine"])
    wrong = _text("share", 1 - after["robust_accuracy"] - after["attack_success_rate"])
    return [f"REFINE takes {wrong} of the triggered images for neither what they are nor the target: {most}"]


def _warning(figures: dict[str, Any]) -> list[str]:
    if figures.get("attack_succeeded", True):
        return []
    asr = _text("attack_success_rate", figures["no_defense"]["attack_success_rate"])
    lines = [
        f"THE ATTACK DID NOT TAKE: its success rate without defense is {asr}, under evaluate.least_asr.",
        "A defense against an attack that does not work proves nothing. Raise the attack's rate or strength,",
        "or train the classifier longer, before you read anything into the column REFINE.",
    ]
    frame = "!" * max(len(line) for line in lines)
    return ["", frame, *lines, frame]


def _text(name: str, value: float) -> str:
    return f"{value:.4f}" if name.endswith("nll") else f"{100 * value:.2f} %"
