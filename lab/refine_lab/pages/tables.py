"""Recorded runs as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from refine.core.registry import ATTACKS, DEFENSES, names
from refine_lab.lists.plan import plan
from refine_lab.lists.rows import Row, Rows, read_rows
from refine_lab.pages.cells import settings
from refine_lab.pages.lines import attack_line, defense_line, result_line, spread_line
from refine_lab.pages.notes import notes
from refine_lab.runs.recorded import HOME, Run, read_all

Line = Callable[[Row, Run | None], dict[str, str]]


def attacks(listed: Rows, project: Path) -> str:
    """The figures of each attack, and whether attack and defense reach their aims; attacks without a row come last."""
    unlisted = [Row(attack=name) for name in _missing(ATTACKS, {row.attack for row in listed.rows})]
    return _table(listed, project, attack_line, unlisted)


def defenses(listed: Rows, project: Path) -> str:
    """The figures of each defense, and whether it reaches its aim; defenses without a row come last."""
    attack = listed.rows[-1].attack
    unlisted = [Row(attack=attack, defense=name) for name in _missing(DEFENSES, {row.defense for row in listed.rows})]
    return _table(listed, project, defense_line, unlisted)


def spread(listed: Rows, project: Path) -> str:
    """The figures of each run, with its seed and the number of threads that computed it."""
    return _table(listed, project, spread_line)


def results(listed: Rows, project: Path) -> str:
    """Each run with its figures, what departs from the preset, and how long it took on what.

    What all of them depart in is said once, above the table. Rows that have not been run are counted below it.
    """
    first, *others = (row.changes for row in listed.rows)
    common = {name: value for name, value in first.items() if all((name, value) in other.items() for other in others)}
    runs = computed(listed, project)
    lines = [result_line(row, run, common) for row, run in runs if run is not None]
    if not lines:
        return f"None of the {len(runs)} rows of this list has been run."
    table = markdown(pd.DataFrame(lines))
    table = "\n\n".join([table, " ".join(notes([run for _, run in runs if run is not None]) + missing(runs))])
    above = f"Every row departs from `{listed.preset}` in {', '.join(settings(common))}.\n\n" if common else ""
    return above + table


def not_run(lists: Path, project: Path) -> str:
    """The lists of a folder that have rows that were not run, how many, and the command that runs them."""
    lines = []
    for file in sorted(lists.glob("*.yaml")):
        runs = computed(read_rows(file), project)
        count = sum(run is None for _, run in runs)
        if count:
            command = f"`refine run-list {file.relative_to(project).as_posix()}`"
            lines.append({"not run": f"{count} of {len(runs)}", "command": command})
    return markdown(pd.DataFrame(lines)) if lines else "All rows of all lists have been run."


def missing(runs: list[tuple[Row, Run | None]]) -> list[str]:
    """A sentence on rows of a list that have not been run; none where all have."""
    count = sum(run is None for _, run in runs)
    return [f"{count} of the {len(runs)} rows of this list have not been run."] if count else []


def computed(listed: Rows, project: Path) -> list[tuple[Row, Run | None]]:
    """The rows of a list, each with its recorded run if there is one."""
    recorded = read_all(project / HOME)
    return [(row, recorded.get(str(name))) for row, name, _ in plan(listed, project)]


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; what is missing is empty."""
    return table.fillna("").to_markdown(index=False, disable_numparse=True)


def _table(listed: Rows, project: Path, line: Line, unlisted: list[Row] | None = None) -> str:
    """One line for each run of a list, computed or not, and under them the meaning of their columns.

    Args:
        listed: the runs.
        project: whose recorded runs are read.
        line: makes the cells of one run.
        unlisted: further rows, which have no run.
    """
    runs = computed(listed, project) + [(row, None) for row in unlisted or ()]
    table = markdown(pd.DataFrame([line(row, run) for row, run in runs]))
    return "\n\n".join([table, *notes([run for _, run in runs if run is not None])])


def _missing(room: str, listed: set[str]) -> list[str]:
    return [name for name in names(room) if name not in listed]
