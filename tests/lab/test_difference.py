"""The last lines of `./run`, about figures that are not the committed ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from recorded_runs import name, write
from recorded_runs import run as run_of
from refine.core.errors import UserError
from refine.core.files import write_json
from refine_lab.difference import report
from refine_lab.runs.recorded import HOME
from repositories import ok, repository
from support import TINY_PARAMS, write_params

BEFORE = {"benign_accuracy": 0.9, "attack_success_rate": 1.0}
AFTER = {"benign_accuracy": 0.88, "attack_success_rate": 0.02, "interval_95": {"benign_accuracy": [0.86, 0.9]}}
STAGES = {
    "measure": {
        "cmd": "true",
        "params": ["train_refine"],
        "metrics": [{f"metrics/{system}.json": {"cache": False}} for system in ("no_defense", "refine", "shrinkpad")],
    }
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with committed metrics, and three recorded runs, two of them with BA 0.86 and 0.89 behind REFINE."""
    project = tmp_path / "project"
    (project / "metrics").mkdir(parents=True)
    write_params(project, TINY_PARAMS)
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}), encoding="utf-8")
    (project / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    for system, figures in (("no_defense", BEFORE), ("refine", AFTER), ("shrinkpad", AFTER)):
        write_json(project / f"metrics/{system}.json", figures)
    other = {**copy.deepcopy(TINY_PARAMS["train_backdoor"]), "network": {"name": "resnet18", "width": 16}}
    for seed, accuracy, changes in ((1, 0.86, {}), (2, 0.89, {}), (3, 0.5, {"train_backdoor": other})):
        write(project / HOME, run_of(name(seed=seed), benign_accuracy=accuracy), **changes)
    for seed in (1, 2):
        write(project / HOME, run_of(name(defense="shrinkpad", seed=seed), benign_accuracy=0.7))
    repository(project)
    return project


def _ended(project: Path, system: str = "refine", **figures: Any) -> str:
    write_json(project / f"metrics/{system}.json", {**AFTER, **figures})
    (project / "dvc.lock").write_text("schema: '2.0'\n\n", encoding="utf-8")
    return report(project)


def test_nothing_is_said_where_nothing_changed(checkout: Path) -> None:
    assert report(checkout) == ""


def test_nothing_is_said_outside_of_a_repository(tmp_path: Path) -> None:
    assert report(tmp_path) == ""


def test_a_figure_within_the_spread_of_runs_of_this_very_experiment(checkout: Path) -> None:
    said = _ended(checkout, benign_accuracy=0.87)
    assert "BA, REFINE: 88.00 % -> 87.00 % (-1.00), within 86.00 % to 89.00 % of 2 recorded runs" in said
    assert "ASR, REFINE: 2.00 % -> 2.00 % (+0.00)" in said
    assert "Changed in this checkout: dvc.lock, metrics/refine.json." in said
    assert "git checkout dvc.lock metrics" in said


def test_the_bare_classifier_comes_first_and_then_each_defense_by_name(checkout: Path) -> None:
    for system in ("shrinkpad", "no_defense"):
        write_json(checkout / f"metrics/{system}.json", {**AFTER, "benign_accuracy": 0.5})
    said = _ended(checkout, benign_accuracy=0.87)
    shown = [line.split(":")[0].strip() for line in said.splitlines()[1:7]]
    systems = ("no defense", "REFINE", "ShrinkPad")
    assert shown == [f"{figure}, {system}" for system in systems for figure in ("BA", "ASR")]


def test_a_further_defense_has_a_spread_of_its_own(checkout: Path) -> None:
    said = _ended(checkout, "shrinkpad", benign_accuracy=0.87)
    assert "BA, ShrinkPad: 88.00 % -> 87.00 % (-1.00), OUTSIDE 70.00 % to 70.00 % of 2 recorded runs" in said


def test_the_classifier_without_defense_is_compared_too(checkout: Path) -> None:
    said = _ended(checkout, "no_defense", benign_accuracy=0.978)
    assert "BA, no defense: 90.00 % -> 97.80 % (+7.80), within 97.80 % to 97.80 % of 2 recorded runs" in said


@pytest.mark.parametrize("benign_accuracy", [0.8599, 0.8901])
def test_a_figure_outside_of_it(checkout: Path, benign_accuracy: float) -> None:
    assert "OUTSIDE 86.00 % to 89.00 % of 2 recorded runs" in _ended(checkout, benign_accuracy=benign_accuracy)


@pytest.mark.parametrize("benign_accuracy", [0.86, 0.89])
def test_the_ends_of_the_spread_belong_to_it(checkout: Path, benign_accuracy: float) -> None:
    (line,) = (line for line in _ended(checkout, benign_accuracy=benign_accuracy).splitlines() if "BA, REFINE" in line)
    assert f"-> {100 * benign_accuracy:.2f} %" in line
    assert ", within 86.00 % to 89.00 % of 2 recorded runs" in line


def test_equal_figures_with_another_lock(checkout: Path) -> None:
    assert _ended(checkout).startswith("All figures are as committed.\nChanged in this checkout: dvc.lock.")


def test_a_new_metrics_file_has_nothing_to_be_compared_with(checkout: Path) -> None:
    ok(checkout, "git", "rm", "-q", "--cached", "metrics/shrinkpad.json")
    ok(checkout, "git", "commit", "-qm", "without")
    assert "ShrinkPad" not in _ended(checkout, benign_accuracy=0.87)


def test_other_parameters_are_not_compared(checkout: Path) -> None:
    content = copy.deepcopy(TINY_PARAMS)
    content["train_refine"]["seed"] = 2
    write_params(checkout, content)
    said = _ended(checkout, benign_accuracy=0.87)
    assert "params.yaml is not as committed" in said
    assert "%" not in said


def test_metrics_that_cannot_be_read_are_refused(checkout: Path) -> None:
    (checkout / "metrics/refine.json").write_text('{"cut', encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics/refine\.json cannot be compared; run `dvc repro`"):
        report(checkout)
