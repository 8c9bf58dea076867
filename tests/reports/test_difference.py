"""What `./run` says in the end about figures that are not the committed ones."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from refine.core.files import write_json
from refine.reports.difference import report
from refine.reports.run import HOME, Facts, Name
from repositories import ok
from support import PROJECT, TINY_PARAMS, environment, run

FIGURES = {
    "no_defense": {"benign_accuracy": 0.9, "attack_success_rate": 1.0},
    "refine": {"benign_accuracy": 0.88, "attack_success_rate": 0.02},
}


def _recorded(project: Path, seed: int, benign_accuracy: float, **sections: Any) -> None:
    """A recorded run, of which the report reads parameters and figures."""
    params: dict[str, Any] = copy.deepcopy(TINY_PARAMS) | sections
    for section in ("poison_dataset", "train_backdoor", "train_refine"):
        params[section]["seed"] = seed
    name = Name(dataset="folder", preset="quick", attack="badnets", seed=seed)
    facts = Facts(
        name=name,
        changes={},
        commit="0" * 40,
        poisoned=1,
        cover=0,
        rate_of_dataset=0.1,
        rate_of_classes=0.1,
        runtime={},
    )
    folder = project / HOME / str(name)
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    figures = copy.deepcopy(FIGURES)
    figures["refine"]["benign_accuracy"] = benign_accuracy
    write_json(folder / "evaluate.json", figures)
    write_json(folder / "run.json", facts.model_dump())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a committed run, and two recorded ones of BA 0.86 and 0.89 behind REFINE."""
    project = tmp_path / "project"
    (project / "metrics").mkdir(parents=True)
    (project / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS), encoding="utf-8")
    (project / "dvc.lock").write_text("first\n", encoding="utf-8")
    write_json(project / "metrics/evaluate.json", FIGURES)
    _recorded(project, 1, 0.86)
    _recorded(project, 2, 0.89)
    other = {**copy.deepcopy(TINY_PARAMS["train_backdoor"]), "network": {"name": "resnet18", "width": 16}}
    _recorded(project, 3, 0.5, train_backdoor=other)
    for command in ("git init -q -b main", "git config user.email a@b.c", "git config user.name tester", "git add -A"):
        ok(project, *command.split())
    ok(project, "git", "commit", "-qm", "first")
    return project


def _ended(project: Path, benign_accuracy: float) -> str:
    figures = copy.deepcopy(FIGURES)
    figures["refine"]["benign_accuracy"] = benign_accuracy
    write_json(project / "metrics/evaluate.json", figures)
    (project / "dvc.lock").write_text("second\n", encoding="utf-8")
    return report(project)


def test_nothing_is_said_where_nothing_changed(checkout: Path) -> None:
    assert report(checkout) == ""


def test_nothing_is_said_outside_of_a_repository(tmp_path: Path) -> None:
    assert report(tmp_path) == ""


def test_a_figure_within_the_spread_of_runs_of_this_very_experiment(checkout: Path) -> None:
    said = _ended(checkout, 0.87)
    assert "BA, REFINE: 88.00 % -> 87.00 % (-1.00), within 86.00 % to 89.00 % of 2 recorded runs" in said
    assert "ASR, REFINE: 2.00 % -> 2.00 % (+0.00)" in said
    assert "Changed in this checkout: dvc.lock, metrics/evaluate.json." in said
    assert "git checkout dvc.lock metrics" in said


@pytest.mark.parametrize("benign_accuracy", [0.8599, 0.8901])
def test_a_figure_outside_of_it(checkout: Path, benign_accuracy: float) -> None:
    assert "OUTSIDE 86.00 % to 89.00 % of 2 recorded runs" in _ended(checkout, benign_accuracy)


def test_the_ends_of_the_spread_belong_to_it(checkout: Path) -> None:
    assert "OUTSIDE" not in _ended(checkout, 0.86)
    assert "OUTSIDE" not in _ended(checkout, 0.89)


def test_equal_figures_with_another_lock(checkout: Path) -> None:
    (checkout / "dvc.lock").write_text("second\n", encoding="utf-8")
    assert report(checkout).startswith("All figures are as committed.\nChanged in this checkout: dvc.lock.")


def test_other_parameters_are_not_compared(checkout: Path) -> None:
    content = copy.deepcopy(TINY_PARAMS) | {"evaluate": {"batch_size": 3}}
    (checkout / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    said = _ended(checkout, 0.87)
    assert "params.yaml is not as committed" in said
    assert "%" not in said


def test_the_command_of_both_commands_says_it_last(checkout: Path) -> None:
    shutil.copytree(PROJECT / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    figures = json.loads((checkout / "metrics/evaluate.json").read_text(encoding="utf-8"))
    figures["refine"]["benign_accuracy"] = 0.87
    write_json(checkout / "metrics/evaluate.json", figures)
    result = run(checkout, "python", "-m", "refine.reports.difference", env=environment(PYTHONPATH="src"))
    assert result.returncode == 0, result.stderr
    assert result.stdout == report(checkout)
    assert "dvc repro\n        exec python -m refine.reports.difference\n" in (PROJECT / "run").read_text(
        encoding="utf-8"
    )
