"""The table that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

_NAMES = {
    "agreement": "same class as without defense",
    "benign_accuracy": "benign accuracy (BA)",
    "attack_success_rate": "attack success rate (ASR)",
    "asr_floor_clean": "ASR floor, without trigger",
    "robust_accuracy": "robust accuracy, with trigger",
    "der": "defense effectiveness (DER)",
}
"""What each figure is called, in the order of the rows."""

_READABLE = 0.05
"""How much larger the share of misread images may be with the trigger than without it before the table mentions it."""


def render(systems: Mapping[str, Mapping[str, Any]], diagnostics: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """One row for each figure, one column for each system.

    Shares are given in percent, with their 95 % intervals; what is not defined has no row.

    Args:
        systems: the content of each system's metrics file by its name, the bare classifier first.
        diagnostics: of the defended one.
        titles: what the systems are called.
    """
    (bare, before), (defense, after) = systems.items()
    rows = {
        label: [_cell(name, figures) for figures in (before, after)] for name, label in _NAMES.items() if name in before
    }
    shown = pd.DataFrame.from_dict(rows, orient="index", columns=[titles[bare], titles[defense]]).to_string()
    images = diagnostics["images"]
    note = f"{images['benign']:,} benign and {images['triggered']:,} triggered test images; 95 % intervals in brackets"
    misread = _misread(after, diagnostics, defense, titles[defense])
    return "\n".join([shown, note, *misread, *_warning(before, diagnostics, titles[defense])])


def _cell(name: str, figures: Mapping[str, Any]) -> str:
    if name == "der":
        return f"{figures[name]:.4f}"
    low, high = figures["interval_95"][name]
    return f"{_percent(figures[name])} [{100 * low:.1f}, {100 * high:.1f}]"


def _misread(after: Mapping[str, Any], diagnostics: Mapping[str, Any], defense: str, title: str) -> list[str]:
    if "robust_accuracy" not in after:
        return []
    misread = 1 - after["robust_accuracy"] - after["attack_success_rate"]
    if misread <= 1 - after["benign_accuracy"] + _READABLE:
        return []
    most = ", ".join(f"{each['as']} ({_percent(each['share'])})" for each in diagnostics["misread"][defense])
    share = _percent(misread)
    return [f"with {title}, {share} of the triggered images are taken for neither their class nor the target: {most}"]


def _warning(before: Mapping[str, Any], diagnostics: Mapping[str, Any], title: str) -> list[str]:
    if diagnostics.get("attack_succeeded", True):
        return []
    asr = _percent(before["attack_success_rate"])
    lines = [
        f"THE ATTACK DID NOT SUCCEED: its success rate without defense is {asr}, under evaluate.least_asr.",
        "A defense against an attack that does not work proves nothing. Raise the attack's rate or strength,",
        f"or train the classifier longer, before you read anything into the column {title}.",
    ]
    frame = "!" * max(len(line) for line in lines)
    return ["", frame, *lines, frame]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
