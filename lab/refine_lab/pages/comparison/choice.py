"""Which defense for whom: the best one of a comparison for what a defender has, with the command that trains it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab.lists.plan import plan
from refine_lab.lists.rows import Rows
from refine_lab.pages.comparison.frame import measurements
from refine_lab.pages.comparison.ranking import ranking, records
from refine_lab.pages.comparison.tables import minutes, points, retuned, worst
from refine_lab.pages.tables import markdown
from refine_lab.projects import preset_file
from refine_lab.runs.parameters import has, of_defense, read_params, split_of
from refine_lab.systems import regime

MOST = 0.1
"""Attack success rate above its floor, and drop of benign accuracy, above which nobody is told to take a defense."""

Line = dict[str, Any]


def _untouched(line: Line) -> bool:
    return line["changes_classifier"] is not None and not line["changes_classifier"]


_SITUATIONS: dict[str, Callable[[Line], bool]] = {
    "nothing but the classifier": lambda line: line["regime"] == "none",
    "images without labels": lambda line: line["regime"] == "unlabeled",
    "images without labels, and the classifier must stay as it is": lambda line: (
        line["regime"] in ("none", "unlabeled") and _untouched(line)
    ),
    "some labeled images": lambda line: line["regime"] == "labeled",
    "some labeled images, and the classifier must stay as it is": lambda line: (
        line["regime"] == "labeled" and _untouched(line)
    ),
    "the training set that the classifier was trained on": lambda line: line["regime"] == "poisoned_train",
}
"""What a defender has, and which defenses are for that."""


def chosen(listed: Rows, project: Path) -> str:
    """A line for each situation: the defense that comes first in the ranking among those for it, and the next one.

    Defenses that let too much through or cost too much, see `MOST`, come after all others, in the order of that. Nobody
    is told to take one of them, or one that was not measured against all attacks. Below are the commands.
    """
    measured = measurements(listed, project)
    if measured.empty:
        return "Not yet run."
    order = sorted(records(ranking(measured)), key=_harm)
    most = max(line["attacks"] for line in order)
    found = {situation: [line for line in order if fits(line)] for situation, fits in _SITUATIONS.items()}
    table = markdown(pd.DataFrame([_line(situation, lines, most) for situation, lines in found.items() if lines]))
    taken = dict.fromkeys(str(lines[0]["system"]) for lines in found.values() if lines)
    commands = _commands(listed, measured, project)
    below = [line for name in taken for line in (f"# {name}", commands[name])]
    return "\n".join([table, "", "```sh", *below, "```", *_not_run(listed, found)])


def _not_run(listed: Rows, found: dict[str, list[Line]]) -> list[str]:
    """A sentence about situations for which the list has defenses, of which none was recorded."""
    unknown = [{"regime": regime(row.defense), "changes_classifier": None} for row in listed.rows]
    open_ones = [name for name, fits in _SITUATIONS.items() if not found[name] and any(map(fits, unknown))]
    return ["", f"Not yet run: defenses that need {' or '.join(open_ones)}."] if open_ones else []


def _line(situation: str, candidates: list[Line], most: int) -> dict[str, str]:
    """Args:
    situation: what the defender has.
    candidates: defenses for that, in order, one at least.
    most: attacks that a defense was measured against.
    """
    best, *others = candidates
    name = f"{best['system']}{_lacking(best, most)}"
    return {
        "you have": situation,
        "take": f"none of these; least bad: {name}" if _harm(best) or _lacking(best, most) else f"**{name}**",
        "worst ASR above its floor": worst(best),
        "largest BA drop": points(best["ba_drop"]),
        "largest ASR after retuning": retuned(best, of_several=True),
        "minutes": minutes(best["minutes"]),
        "next": _next(others[0], most) if others else "-",
    }


def _next(line: Line, most: int) -> str:
    return f"{line['system']}: {worst(line)}, BA drop {points(line['ba_drop'])}{_lacking(line, most)}"


def _lacking(line: Line, most: int) -> str:
    return f" ({line['attacks']} of {most} attacks)" if line["attacks"] < most else ""


def _harm(line: Line) -> float:
    """What a defense that is no choice lets through or costs; 0 for one that may be chosen."""
    harm = max(float(line["above_floor"]), float(line["ba_drop"]))
    return harm if harm > MOST else 0.0


def _commands(listed: Rows, measured: pd.DataFrame, project: Path) -> dict[str, str]:
    """How somebody trains and measures each system alone, with the list's preset as `params.yaml`."""
    names = {(line["defense"], line["variant"]): str(line["system"]) for line in records(measured)}
    preset = read_params(project / preset_file(listed.preset))
    commands = {}
    for row, _, params in plan(listed, project):
        if (row.defense, row.variant) not in names:
            continue
        defenses = "" if row.defense == STAGE_OF_ITS_OWN else row.defense
        options = [f"splits=[{split_of(params, row.defense) or ''}]", f"defenses=[{defenses}]"]
        options += [
            _option(name, value, has(preset, name), has(params, name))
            for name, value in of_defense(preset, params, row.defense).items()
        ]
        commands[names[row.defense, row.variant]] = " ".join(["dvc exp run", *(f"-S '{each}'" for each in options)])
    return commands


def _option(name: str, value: Any, there: bool, stays: bool) -> str:
    """What sets, adds or removes a parameter, as `dvc exp run -S` wants it."""
    if not stays:
        return f"~{name}"
    return f"{'' if there else '++'}{name}={value if isinstance(value, str) else json.dumps(value)}"
