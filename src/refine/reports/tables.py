"""Recorded runs as tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from refine.reports import lists, run
from refine.reports.aim import aim, percent
from refine.reports.lists import Row, Rows
from refine.reports.run import Run

NOT_YET = "not yet run"
_NONE = "-"
_FLOOR, _TRUE_FLOOR = "floor", "floor with trigger"
_SHOWN = {
    "BA": "benign_accuracy",
    "ASR": "attack_success_rate",
    _FLOOR: "asr_floor",
    _TRUE_FLOOR: "asr_floor_triggered",
    "robust accuracy": "robust_accuracy",
}


Line = Callable[[Row, Run | None], dict[str, str]]


def _table(listed: Rows, project: Path, line: Line) -> str:
    """One line for each run of a list, computed or not, and under them what their columns mean.

    Args:
        listed: the runs.
        project: whose recorded runs are read.
        line: makes the cells of one run.
    """
    recorded = run.read_all(project / run.HOME)
    runs = [(row, recorded.get(str(name))) for row, name in zip(listed.rows, lists.names(listed, project), strict=True)]
    table = markdown(pd.DataFrame([line(row, done) for row, done in runs]))
    notes = _notes([done for _, done in runs if done is not None])
    return f"{table}\n\n{notes}" if notes else table


def attacks(listed: Rows, project: Path) -> str:
    """The figures of each run before and after REFINE, and whether attack and defense did what they are for."""
    return _table(listed, project, _attack_line)


def spread(listed: Rows, project: Path) -> str:
    """The figures of each run, with its seed and the number of threads that computed it."""
    return _table(listed, project, _spread_line)


def results(listed: Rows, project: Path) -> str:
    """Each run with its figures, what departs from the preset, and how long it took on what.

    What all of them depart in is said once, above the table.
    """
    first, *others = (row.changes for row in listed.rows)
    common = {name: value for name, value in first.items() if all((name, value) in other.items() for other in others)}
    table = _table(listed, project, lambda row, done: _result_line(row, done, common))
    return f"Every row departs from `{listed.preset}` in {', '.join(_told(common))}.\n\n{table}" if common else table


def _spread_line(row: Row, done: Run | None) -> dict[str, str]:
    line = {"seed": str(row.seed)}
    if done is None:
        return {**line, "threads": NOT_YET}
    computed = done.facts.runtime.get("train-refine", {})
    line["threads"] = str(computed.get("threads", "from the cache"))
    line["instructions"] = str(done.facts.machine.get("ONEDNN_MAX_CPU_ISA") or computed.get("instructions", _NONE))
    return {**line, **_figures(done)}


def _figures(done: Run) -> dict[str, str]:
    """A cell for each figure, without defense → with REFINE."""
    cells = {}
    for column, name in _SHOWN.items():
        values = [done.figure(system, name) for system in run.SYSTEMS]
        there = [_NONE if value is None else percent(value) for value in values]
        cells[column] = " → ".join(there) if any(value is not None for value in values) else _NONE
    return cells


def _notes(done: list[Run]) -> str:
    """What the figures of these runs are, and why some are missing."""
    attacked = [each for each in done if each.facts.name.attack != "none"]
    told = []
    if done:
        told.append(f"Figures: {' → '.join(run.SYSTEMS.values())}.")
    sources = sorted({f"`{each.facts.clean.run}`" for each in attacked if each.facts.clean})
    if sources:
        told.append(f"*{_TRUE_FLOOR}*: triggered images that the clean classifier of {', '.join(sources)} answers so.")
    if any(each.facts.clean is None for each in attacked):
        told.append(
            f"{_NONE} in *{_TRUE_FLOOR}*: no run without attack of the same data, network, recipe and seed is recorded."
        )
    return " ".join(told)


def _told(changes: dict[str, Any]) -> list[str]:
    """Parameters as somebody would type them."""
    return [f"`{name}: {value if isinstance(value, str) else json.dumps(value)}`" for name, value in changes.items()]


def _result_line(row: Row, done: Run | None, common: dict[str, Any]) -> dict[str, str]:
    own = {name: value for name, value in row.changes.items() if name not in common}
    line = {"attack": f"`{row.attack}`", "variant": row.variant, "departs from the preset in": ", ".join(_told(own))}
    line["seed"] = str(row.seed)
    if done is None:
        return {**line, "BA": NOT_YET}
    before, after = (done.figures[system]["benign_accuracy"] for system in run.SYSTEMS)
    line |= {**_figures(done), "BA drop": f"{100 * (before - after):.1f} points"}
    for column, stage in (("attack", "train-backdoor"), ("defense", "train-refine")):
        told = done.facts.runtime.get(stage)
        line[f"minutes, {column}"] = f"{told['seconds'] / 60:.0f}" if told else "from the cache"
    told = done.facts.runtime.get("train-refine")
    if told:
        line["on"] = f"{told['device_name']}, {told['threads']} threads, torch {told['versions']['torch']}"
    return line


def _attack_line(row: Row, done: Run | None) -> dict[str, str]:
    line = {"attack": f"`{row.attack}`"}
    if done is None:
        return {**line, "poisoned": NOT_YET}
    line["poisoned"] = _poisoned(done)
    line |= _figures(done)
    changes = {_short(name): value for name, value in done.facts.changes.items() if name not in run.TOLD_BY_THE_NAME}
    own = {name: value for name, value in changes.items() if not name.startswith("source.")}
    trained_otherwise = ["`source`"] if len(own) < len(changes) else []
    reason = f": {row.why}" if row.why else ""
    line["aim"] = aim(done)
    line["departs from the defaults in"] = ", ".join(_told(own) + trained_otherwise) + reason
    return line


def _poisoned(done: Run) -> str:
    facts = done.facts
    if facts.rate_of_classes is None:
        return "none"
    cover = f", {facts.cover} cover" if facts.cover else ""
    shares = f"{percent(facts.rate_of_dataset)} of all, {percent(facts.rate_of_classes)} of their classes"
    return f"{facts.poisoned}{cover}: {shares}"


def _short(name: str) -> str:
    """An attack's parameter without the attack's name."""
    return name.split(".", 2)[2] if name.startswith("attacks.") else name


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; what is missing is empty."""
    return str(table.fillna("").to_markdown(index=False, disable_numparse=True))
