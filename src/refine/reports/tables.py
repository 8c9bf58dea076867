"""Recorded runs as tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from refine.reports import rows, run
from refine.reports.rows import Row, Rows
from refine.reports.run import Run

NOT_YET = "not yet run"
_TAKES = 0.9
_NEAR_FLOOR = 0.01


Line = Callable[[Row, Run | None], dict[str, str]]


def _table(listed: Rows, project: Path, line: Line) -> str:
    """One line for each run of a list, computed or not.

    Args:
        listed: the runs.
        project: whose recorded runs are read.
        line: makes the cells of one run.
    """
    recorded = run.read_all(project / run.HOME)
    named = zip(listed.rows, rows.names(listed, project), strict=True)
    return markdown(pd.DataFrame([line(row, recorded.get(str(name))) for row, name in named]))


def attacks(listed: Rows, project: Path) -> str:
    """BA, ASR and floor of each run before and after REFINE, and what is to be said of it."""
    return _table(listed, project, _attack_line)


def spread(listed: Rows, project: Path) -> str:
    """BA and ASR of each run, with its seed and the number of threads that computed it."""
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
    line["threads"] = str(done.facts.runtime.get("train-refine", {}).get("threads", "from the cache"))
    return {**line, **_figures(done.figures)}


def _figures(figures: dict[str, Any]) -> dict[str, str]:
    cells = {}
    for system, column in run.SYSTEMS.items():
        own = figures[system]
        for short, name in (("BA", "benign_accuracy"), ("ASR", "attack_success_rate"), ("floor", "asr_floor")):
            cells[f"{short}, {column}"] = percent(own[name]) if name in own else "-"
    return cells


def _told(changes: dict[str, Any]) -> list[str]:
    """Parameters as somebody would type them."""
    return [f"`{name}: {value if isinstance(value, str) else json.dumps(value)}`" for name, value in changes.items()]


def _result_line(row: Row, done: Run | None, common: dict[str, Any]) -> dict[str, str]:
    own = {name: value for name, value in row.changes.items() if name not in common}
    line = {"attack": f"`{row.attack}`", "variant": row.variant, "departs from the preset in": ", ".join(_told(own))}
    line["seed"] = str(row.seed)
    if done is None:
        return {**line, "BA, no defence": NOT_YET}
    before, after = (done.figures[system]["benign_accuracy"] for system in ("no_defence", "refine"))
    line |= {**_figures(done.figures), "BA drop": f"{100 * (before - after):.1f} points"}
    for column, stage in (("attack", "train-backdoor"), ("defence", "train-refine")):
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
    line |= _figures(done.figures)
    changes = {_short(name): value for name, value in done.facts.changes.items() if name not in run.TOLD_BY_THE_NAME}
    own = {name: value for name, value in changes.items() if not name.startswith("source.")}
    trained_otherwise = ["`source`"] if len(own) < len(changes) else []
    reason = f": {row.why}" if row.why else ""
    line["aim"] = _aim(done.figures)
    line["departs from the defaults in"] = ", ".join(_told(own) + trained_otherwise) + reason
    return line


def _poisoned(done: Run) -> str:
    facts = done.facts
    if facts.rate_of_classes is None:
        return "none"
    cover = f", {facts.cover} cover" if facts.cover else ""
    shares = f"{percent(facts.rate_of_dataset)} of all, {percent(facts.rate_of_classes)} of their classes"
    return f"{facts.poisoned}{cover}: {shares}"


def _aim(figures: dict[str, Any]) -> str:
    """Whether the attack took, and whether the defence brought it down to its floor."""
    before, after = figures["no_defence"], figures["refine"]
    if "attack_success_rate" not in before:
        return "no attack"
    missed = []
    if before["attack_success_rate"] < _TAKES:
        missed.append(f"ASR before is under {percent(_TAKES)}")
    above = after["attack_success_rate"] - after["asr_floor"]
    if above > _NEAR_FLOOR:
        misread = f"{percent(1 - after['robust_accuracy'])} of the triggered images are misread"
        missed.append(f"ASR after is {100 * above:.1f} points above its floor, and {misread}")
    return f"**missed**: {', '.join(missed)}" if missed else "met"


def _short(name: str) -> str:
    """An attack's parameter without the attack's name."""
    return name.split(".", 2)[2] if name.startswith("attacks.") else name


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; what is missing is empty."""
    return str(table.fillna("").to_markdown(index=False, disable_numparse=True))
