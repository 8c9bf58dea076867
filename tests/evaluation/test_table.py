"""The table that a run ends with."""

from __future__ import annotations

import copy
from typing import Any

from refine.evaluation.table import render

FIGURES: dict[str, Any] = {
    "images": {"benign": 10_000, "triggered": 9_000},
    "no_defense": {
        "asr_floor": 0.005,
        "attack_success_rate": 1.0,
        "benign_accuracy": 0.9118,
        "benign_nll": 0.31234,
        "raw_target_hit": 1.0,
        "robust_accuracy": 0.0,
    },
    "refine": {
        "asr_floor": 0.006,
        "attack_success_rate": 0.0123,
        "benign_accuracy": 0.9,
        "benign_nll": 0.4,
        "raw_target_hit": 0.1,
        "robust_accuracy": 0.88,
    },
}


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_it_has_a_row_for_each_figure_and_a_column_for_each_system() -> None:
    assert _rows(render(FIGURES)) == [
        ["no", "defense", "REFINE"],
        ["benign", "accuracy", "(BA)", "91.18", "%", "90.00", "%"],
        ["attack", "success", "rate", "(ASR)", "100.00", "%", "1.23", "%"],
        ["ASR", "floor,", "without", "trigger", "0.50", "%", "0.60", "%"],
        ["robust", "accuracy,", "with", "trigger", "0.00", "%", "88.00", "%"],
        ["raw", "target", "hit", "100.00", "%", "10.00", "%"],
        ["benign", "NLL", "0.3123", "0.4000"],
        ["10,000", "benign", "and", "9,000", "triggered", "test", "images"],
    ]


def test_figures_that_are_not_defined_have_no_row() -> None:
    figures = copy.deepcopy(FIGURES)
    figures["images"]["triggered"] = 0
    for system in ("no_defense", "refine"):
        figures[system] = {name: figures[system][name] for name in ("benign_accuracy", "benign_nll")}
    assert [row[:2] for row in _rows(render(figures))[1:-1]] == [["benign", "accuracy"], ["benign", "NLL"]]
    assert "0 triggered" in render(figures)


def test_every_figure_that_is_measured_is_shown() -> None:
    figures = copy.deepcopy(FIGURES)
    for system in ("no_defense", "refine"):
        figures[system]["top5_accuracy"] = 0.987
    assert ["top-5", "accuracy", "98.70", "%", "98.70", "%"] in _rows(render(figures))
    assert len(_rows(render(figures))) == 2 + len(figures["refine"])


def test_images_that_the_defense_misreads_are_told_with_what_they_are_taken_for() -> None:
    figures = copy.deepcopy(FIGURES)
    assert "takes" not in render(figures)
    figures["refine"] |= {"robust_accuracy": 0.8}
    figures["misread"] = {"refine": [{"as": "bird", "share": 0.12}, {"as": "cat", "share": 0.0677}]}
    last = render(figures).splitlines()[-1]
    assert last == (
        "REFINE takes 18.77 % of the triggered images for neither what they are nor the target: "
        "bird (12.00 %), cat (6.77 %)"
    )


def test_an_attack_that_did_not_take_is_told_loudly() -> None:
    figures = copy.deepcopy(FIGURES)
    figures["attack_succeeded"] = True
    assert "TAKE" not in render(figures)
    figures["attack_succeeded"] = False
    figures["no_defense"]["attack_success_rate"] = 0.1422
    assert "THE ATTACK DID NOT TAKE: its success rate without defense is 14.22 %" in render(figures)
    assert "proves nothing" in render(figures)
