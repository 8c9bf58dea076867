"""Tables of recorded runs: what their cells say, and what is said under them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from refine.reports import tables
from refine.reports.aim import aim
from refine.reports.lists import Row
from refine.reports.run import Clean, Facts, Name, OnTriggered, Run

FIGURES: dict[str, Any] = {
    "no_defense": {
        "benign_accuracy": 0.978,
        "attack_success_rate": 1.0,
        "asr_floor": 0.002,
        "robust_accuracy": 0.0,
    },
    "refine": {
        "benign_accuracy": 0.983,
        "attack_success_rate": 0.004,
        "asr_floor": 0.003,
        "robust_accuracy": 0.975,
    },
}
CLEAN = Clean(
    run="mnist5k-quick-none-default-s1",
    no_defense=OnTriggered(asr_floor_triggered=0.045, robust_accuracy=0.9, misread=[]),
    refine=OnTriggered(asr_floor_triggered=0.08, robust_accuracy=0.5, misread=[]),
)
ROW = Row(attack="badnets")


def _run(clean: Clean | None = None, attack: str = "badnets", **after: Any) -> Run:
    figures = copy.deepcopy(FIGURES)
    if attack == "none":
        figures = {system: {"benign_accuracy": of["benign_accuracy"]} for system, of in figures.items()}
    figures["refine"] |= after
    facts = Facts(
        name=Name(dataset="mnist5k", preset="quick", attack=attack, seed=1),
        changes={},
        commit="0" * 40,
        poisoned=400,
        cover=0,
        rate_of_dataset=0.1,
        rate_of_classes=None if attack == "none" else 0.1,
        runtime={},
        clean=clean,
    )
    return Run(Path(), facts, figures)


def test_every_row_tells_ba_asr_floors_and_robust_accuracy_in_this_order() -> None:
    line = tables._attack_line(ROW, _run(CLEAN))
    assert list(line.items())[2:7] == [
        ("BA", "97.8 % → 98.3 %"),
        ("ASR", "100.0 % → 0.4 %"),
        ("floor", "0.2 % → 0.3 %"),
        ("floor with trigger", "4.5 % → 8.0 %"),
        ("robust accuracy", "0.0 % → 97.5 %"),
    ]
    own = {"ASR", "BA", "floor", "floor with trigger", "robust accuracy"}
    assert own <= set(tables._spread_line(ROW, _run()))
    assert own <= set(tables._result_line(ROW, _run(), {}))


def test_what_is_not_known_is_a_dash() -> None:
    assert tables._attack_line(ROW, _run())["floor with trigger"] == "-"
    only_one = CLEAN.model_copy(update={"refine": None})
    assert tables._attack_line(ROW, _run(only_one))["floor with trigger"] == "4.5 % → -"
    benign = tables._attack_line(ROW, _run(attack="none"))
    assert (benign["BA"], benign["ASR"], benign["robust accuracy"]) == ("97.8 % → 98.3 %", "-", "-")
    assert benign["aim"] == "no attack"


def test_notes_name_the_clean_run_and_say_where_there_is_none() -> None:
    assert "the clean classifier of `mnist5k-quick-none-default-s1` answers so" in tables._notes([_run(CLEAN)])
    assert "- in *floor" not in tables._notes([_run(CLEAN), _run(attack="none")])
    assert "- in *floor with trigger*: no run without attack" in tables._notes([_run(CLEAN), _run()])
    assert tables._notes([]) == ""


@pytest.mark.parametrize(
    ("clean", "after", "told"),
    [
        (None, {}, "met"),
        (None, {"attack_success_rate": 0.05}, "**missed**: ASR after is 4.7 points above its floor"),
        (
            None,
            {"robust_accuracy": 0.668},
            "**missed**: 33.2 % of the triggered images are not read as what they are",
        ),
        (CLEAN, {"attack_success_rate": 0.085, "robust_accuracy": 0.46}, "met"),
        (CLEAN, {"attack_success_rate": 0.095}, "**missed**: ASR after is 1.5 points above its floor"),
        (
            CLEAN,
            {"robust_accuracy": 0.44},
            "**missed**: 56.0 % of the triggered images are not read as what they are (50.0 % without backdoor)",
        ),
        (
            CLEAN.model_copy(update={"refine": None}),
            {"attack_success_rate": 0.06, "robust_accuracy": 0.84},
            "**missed**: ASR after is 1.5 points above its floor, "
            "16.0 % of the triggered images are not read as what they are (10.0 % without backdoor)",
        ),
    ],
)
def test_a_row_says_whether_the_aim_was_met(clean: Clean | None, after: dict[str, float], told: str) -> None:
    assert aim(_run(clean, **after)) == told


def test_an_attack_that_did_not_take_misses_the_aim() -> None:
    weak = _run()
    weak.figures["no_defense"]["attack_success_rate"] = 0.4
    assert aim(weak) == "**missed**: ASR before is under 90.0 %"


def test_broken_classification_says_what_images_are_taken_for() -> None:
    broken = _run(robust_accuracy=0.6)
    broken.figures["misread"] = {"refine": [{"as": "1", "share": 0.2}, {"as": "8", "share": 0.1}]}
    assert aim(broken).endswith("not read as what they are, most often as `1` (20.0 %)")
