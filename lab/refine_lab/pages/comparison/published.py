"""Published figures beside ours, for the defenses and attacks of a list."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from refine.core.errors import UserError
from refine_lab.lists.rows import Rows
from refine_lab.pages.cells import NONE
from refine_lab.pages.comparison.frame import measurements
from refine_lab.pages.comparison.ranking import averaged, records
from refine_lab.pages.comparison.tables import points
from refine_lab.pages.tables import markdown
from refine_lab.systems import label

FILE = "docs/published.csv"
"""With the columns `COLUMNS`; figures in percent, empty where unknown."""
COLUMNS = ("source", "defense", "attack", "ba_before", "ba", "asr_before", "asr")
_FIGURES = ("ba_before", "ba", "asr_before", "asr")
_OURS = "_ours"


def beside_published(listed: Rows, project: Path) -> str:
    """A line for each published figure of a defense of the list against one of its attacks, and ours.

    A source that has several such attacks gets the mean over these as well, which may not be the mean that it tells.

    Raises:
        UserError: the file of published figures is missing or has other columns.
    """
    measured = measurements(listed, project)
    if measured.empty:
        return "Not yet run."
    ours = averaged(measured[measured["variant"] == "default"])[["defense", "attack", *_FIGURES]]
    both = _published(project / FILE).merge(ours, on=["defense", "attack"], suffixes=("", _OURS))
    lines = [line for _, same in both.groupby(["source", "defense"], sort=False) for line in _lines(same)]
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


def _lines(same: pd.DataFrame) -> list[dict[str, str]]:
    """Of one source and one defense."""
    figures = pd.DataFrame(
        {
            "drop": same["ba_before"] - same["ba"],
            "drop_ours": same[f"ba_before{_OURS}"] - same[f"ba{_OURS}"],
            "asr": same["asr"],
            "asr_ours": same[f"asr{_OURS}"],
        }
    )
    figures.index = pd.Index([f"`{attack}`" for attack in same["attack"]])
    if len(same) > 1:
        figures.loc["mean of these"] = figures.mean(skipna=False)
    source, defense = str(same["source"].iloc[0]), label(str(same["defense"].iloc[0]))
    return [
        {"defense": defense, "attack": attack, "published in": source, **_cells(each)}
        for attack, each in zip(figures.index, records(figures), strict=True)
    ]


def _cells(of: dict[str, Any]) -> dict[str, str]:
    return {**_pair("BA drop", of["drop"], of["drop_ours"]), **_pair("ASR", of["asr"], of["asr_ours"])}


def _pair(name: str, theirs: float, ours: float) -> dict[str, str]:
    return {f"{name}, published": NONE if isnan(theirs) else points(theirs), f"{name}, here": points(ours)}
