"""The table that a run ends with."""

from __future__ import annotations

import copy
from typing import Any

from refine.evaluation.table import render

SYSTEMS: dict[str, Any] = {
    "no_defense": {
        "benign_accuracy": 0.9118,
        "attack_success_rate": 1.0,
        "asr_floor_clean": 0.005,
        "robust_accuracy": 0.0,
        "der": 0.5,
        "interval_95": {
            "benign_accuracy": [0.906, 0.9172],
            "attack_success_rate": [0.9996, 1.0],
            "asr_floor_clean": [0.0037, 0.0067],
            "robust_accuracy": [0.0, 0.0004],
        },
    },
    "refine": {
        "benign_accuracy": 0.9,
        "attack_success_rate": 0.0123,
        "asr_floor_clean": 0.006,
        "robust_accuracy": 0.88,
        "der": 0.987951,
        "interval_95": {
            "benign_accuracy": [0.894, 0.9057],
            "attack_success_rate": [0.0102, 0.0148],
            "asr_floor_clean": [0.0046, 0.0078],
            "robust_accuracy": [0.8731, 0.8866],
        },
    },
}
DIAGNOSTICS: dict[str, Any] = {"images": {"benign": 10_000, "triggered": 9_000}}
TITLES = {"no_defense": "no defense", "refine": "REFINE"}


def _rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_it_has_a_row_for_each_figure_and_a_column_for_each_system() -> None:
    assert _rows(render(SYSTEMS, DIAGNOSTICS, TITLES)) == [
        "no defense REFINE",
        "benign accuracy (BA) 91.18 % [90.6, 91.7] 90.00 % [89.4, 90.6]",
        "attack success rate (ASR) 100.00 % [100.0, 100.0] 1.23 % [1.0, 1.5]",
        "ASR floor, without trigger 0.50 % [0.4, 0.7] 0.60 % [0.5, 0.8]",
        "robust accuracy, with trigger 0.00 % [0.0, 0.0] 88.00 % [87.3, 88.7]",
        "defense effectiveness (DER) 0.5000 0.9880",
        "10,000 benign and 9,000 triggered test images; 95 % intervals in brackets",
    ]


def test_columns_have_the_titles_of_the_systems_whatever_they_are_called() -> None:
    systems = {"no_defense": SYSTEMS["no_defense"], "another": SYSTEMS["refine"]}
    text = render(systems, DIAGNOSTICS, {"no_defense": "bare", "another": "A title"})
    assert _rows(text)[0] == "bare A title"
    assert "REFINE" not in text


def test_figures_that_are_not_defined_have_no_row() -> None:
    systems = copy.deepcopy(SYSTEMS)
    for name, figures in systems.items():
        interval = figures["interval_95"]["benign_accuracy"]
        accuracy = figures["benign_accuracy"]
        systems[name] = {"benign_accuracy": accuracy, "interval_95": {"benign_accuracy": interval}}
    text = render(systems, {"images": {"benign": 10_000, "triggered": 0}}, TITLES)
    assert [row.split(" (")[0] for row in _rows(text)[1:-1]] == ["benign accuracy"]
    assert "0 triggered" in text


def test_every_figure_of_a_file_is_shown() -> None:
    assert len(_rows(render(SYSTEMS, DIAGNOSTICS, TITLES))) == 2 + len(set(SYSTEMS["refine"]) - {"interval_95"})


def test_images_that_the_defense_misreads_are_told_with_what_they_are_taken_for() -> None:
    systems = copy.deepcopy(SYSTEMS)
    misread = {"refine": [{"as": "bird", "share": 0.12}, {"as": "cat", "share": 0.0677}]}
    diagnostics = {**DIAGNOSTICS, "misread": misread}
    assert "bird" not in render(systems, diagnostics, TITLES)
    systems["refine"] |= {"robust_accuracy": 0.07, "attack_success_rate": 0.93}
    assert "neither" not in render(systems, diagnostics, TITLES), "what the attacker wants is no misreading"
    systems["refine"] |= {"robust_accuracy": 0.8, "attack_success_rate": 0.0123}
    assert render(systems, diagnostics, TITLES).splitlines()[-1] == (
        "with REFINE, 18.77 % of the triggered images are taken for neither their class nor the target: "
        "bird (12.00 %), cat (6.77 %)"
    )


def test_an_attack_that_did_not_succeed_is_told_loudly() -> None:
    assert "SUCCEED" not in render(SYSTEMS, {**DIAGNOSTICS, "attack_succeeded": True}, TITLES)
    systems = copy.deepcopy(SYSTEMS)
    systems["no_defense"]["attack_success_rate"] = 0.1422
    text = render(systems, {**DIAGNOSTICS, "attack_succeeded": False}, TITLES)
    assert "THE ATTACK DID NOT SUCCEED: its success rate without defense is 14.22 %" in text
    assert "proves nothing" in text
    assert "into the column REFINE." in text
