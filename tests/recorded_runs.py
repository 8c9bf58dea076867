"""Recorded runs made by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from refine.core.files import write_json
from refine_lab.runs.name import Name
from refine_lab.runs.record import Clean, Record
from refine_lab.runs.recorded import Run
from support import TINY_PARAMS, tiny_project

BEFORE: dict[str, Any] = {
    "benign_accuracy": 0.978,
    "attack_success_rate": 1.0,
    "asr_floor_clean": 0.002,
    "robust_accuracy": 0.0,
}
AFTER: dict[str, Any] = {
    "benign_accuracy": 0.983,
    "attack_success_rate": 0.004,
    "asr_floor_clean": 0.003,
    "robust_accuracy": 0.975,
    "der": 0.998,
}
INTERVALS = {
    "benign_accuracy": [0.973, 0.989],
    "attack_success_rate": [0.001, 0.01],
    "robust_accuracy": [0.963, 0.983],
}


def name(attack: str = "badnets", defense: str = "refine", **parts: Any) -> Name:
    """A run's name; other parts are data set and preset of the tiny project, and seed 1."""
    return Name(**{"dataset": "folder", "preset": "quick", "attack": attack, "defense": defense, "seed": 1, **parts})


def record(of: Name, **content: Any) -> Record:
    """The record of a run of that name."""
    poisoned = 0 if of.attack == "none" else 400
    base = {
        "changes": {},
        "commit": "0" * 40,
        "poisoned": poisoned,
        "cover": 0,
        "rate_of_dataset": poisoned / 4000,
        "rate_of_classes": 0.1 if poisoned else None,
        "runtime": {},
    }
    return Record(name=of, **{**base, **content})


def run(of: Name | None = None, clean: Clean | None = None, misread: Any = None, **after: Any) -> Run:
    """A run that is nowhere on disk; `after` changes figures of the defended classifier."""
    of = of or name()
    figures = {"no_defense": copy.deepcopy(BEFORE), of.defense: {**copy.deepcopy(AFTER), **after}}
    if of.attack == "none":
        figures = {system: {"benign_accuracy": own["benign_accuracy"]} for system, own in figures.items()}
    for own in figures.values():
        own["interval_95"] = {figure: list(INTERVALS[figure]) for figure in own if figure in INTERVALS}
    return Run(Path(), record(of, clean=clean), figures, {"misread": {of.defense: misread or []}})


def with_list(folder: Path, text: str) -> tuple[Path, Path]:
    """The tiny project with its parameters as the preset `quick`, and a list of runs in it."""
    project = tiny_project(folder)
    listed = project / "experiments/pairs.yaml"
    for path, content in (
        (project / "presets/quick.yaml", (project / "params.yaml").read_text(encoding="utf-8")),
        (listed, text),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return project, listed


def write(home: Path, done: Run, **sections: Any) -> Path:
    """Writes a run into its folder; `sections` change the parameters of the tiny project."""
    folder = home / str(done.record.name)
    folder.mkdir(parents=True)
    params: dict[str, Any] = copy.deepcopy(TINY_PARAMS)
    params["poison_dataset"]["attack"]["name"] = done.record.name.attack
    params["defenses"] = [] if done.defense == "refine" else [done.defense]
    for section in ("poison_dataset", "train_backdoor", "train_refine", "defense_data"):
        params[section]["seed"] = done.record.name.seed
    for section, content in sections.items():
        params[section] |= content
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for system, figures in done.figures.items():
        write_json(folder / f"{system}.json", figures)
    write_json(folder / "diagnostics.json", done.diagnostics)
    write_json(folder / "run.json", done.record.model_dump())
    return folder
