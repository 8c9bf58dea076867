"""Published figures beside ours, for the defenses and attacks of a list."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from refine.core.errors import UserError
from refine_lab.lists.rows import Rows
from refine_lab.pages.cells import NONE
from refine_lab.pages.comparison.frame import TAKES, measurements
from refine_lab.pages.comparison.ranking import averaged, records
from refine_lab.pages.comparison.tables import points
from refine_lab.pages.tables import markdown
from refine_lab.systems import label

FILE = "docs/published.csv"
"""With the columns `COLUMNS`; figures in percent, empty where unknown."""
COLUMNS = ("source", "defense", "attack", "ba_before", "ba", "asr_before", "asr")
MEAN = "mean"
"""The attack of a published figure that is a mean over attacks, and of ours over all those that the ranking counts."""

_FIGURES = ("ba_before", "ba", "asr_before", "asr")


def beside_published(listed: Rows, project: Path) -> str:
    """A line for each published figure of a defense of the list against one of its attacks, and ours.

    Raises:
        UserError: the file of published figures is missing or has other columns.
    """
    measured = measurements(listed, project)
    if measured.empty:
        return "Not yet run."
    cells = averaged(measured[measured["variant"] == "default"])
    counting = cells[cells["asr_before"] >= TAKES]
    own = cells.set_index(["defense", "attack"])[list(_FIGURES)]
    complete = counting.groupby("defense")["attack"].transform("nunique") == counting["attack"].nunique()
    means = counting[complete].groupby("defense")[list(_FIGURES)].mean()
    means.index = pd.MultiIndex.from_product([means.index, [MEAN]], names=own.index.names)
    ours = pd.concat([own, means]).to_dict("index")
    lines = [
        _line(line, ours[line["defense"], line["attack"]])
        for line in records(_published(project / FILE))
        if (line["defense"], line["attack"]) in ours
    ]
    return markdown(pd.DataFrame(lines))


def _published(path: Path) -> pd.DataFrame:
    """Shares from 0 to 1, in the order of the file."""
    remedy = f"it holds the columns {', '.join(COLUMNS)}"
    try:
        table = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise UserError(f"{path} cannot be read; {remedy}") from None
    if tuple(table.columns) != COLUMNS:
        raise UserError(f"{path} has other columns; {remedy}")
    return table.assign(**{name: table[name].astype(float) / 100 for name in _FIGURES})


def _line(theirs: dict[str, Any], ours: dict[Any, Any]) -> dict[str, str]:
    attack = theirs["attack"]
    return {
        "defense": label(str(theirs["defense"])),
        "attack": "mean of attacks" if attack == MEAN else f"`{attack}`",
        "published in": str(theirs["source"]),
        **_pair("BA drop", _drop(theirs), _drop(ours)),
        **_pair("ASR", theirs["asr"], ours["asr"]),
    }


def _drop(of: dict[str, Any]) -> float:
    return float(of["ba_before"] - of["ba"])


def _pair(name: str, theirs: float, ours: float) -> dict[str, str]:
    return {f"{name}, published": NONE if isnan(theirs) else points(theirs), f"{name}, here": points(ours)}
