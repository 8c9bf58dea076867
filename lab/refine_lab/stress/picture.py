"""The plot of a comparison: success rates of planted triggers after the defense beside that of the true trigger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refine.pictures.figure import DPI, same_everywhere, save

_SHOWN = {"patch": "o", "blend": "s", "warp": "^"}
_OTHER = "D"
_LEAST = 0.1, 0.02
"""Least ends of the axes, across and up."""
_NAMED = 6
"""Experiments that are named in the picture; more names would hide each other."""
_COLORS = ("#d1495b", "#00798c", "#edae49", "#30638e", "#54278f")


def draw(table: pd.DataFrame, path: Path) -> None:
    """Writes a PNG: for each attacked experiment its plants across, the true trigger up; the worst plant is filled.

    Args:
        table: content of `stress.csv`; experiments without an attack and plants that did not take are left out.
        path: of the picture.
    """
    rates = [str(name) for name in table.columns if "asr" in str(name)]
    numbers = table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in rates})
    shown = numbers[numbers["took"] & numbers["true_asr_after"].notna()]
    with same_everywhere():
        figure = Figure(figsize=(7, 4.4), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        across = 100 * max([_LEAST[0], *shown["asr_after_high"]])
        up = 100 * max([_LEAST[1], *shown["true_asr_after"]])
        axes.plot([0, max(across, up)], [0, max(across, up)], color="#bbbbbb", linewidth=0.8, zorder=0)
        for number, (name, plants) in enumerate(shown.groupby("plant", sort=False)):
            _points(axes, plants, str(name), _COLORS[number % len(_COLORS)])
        if shown["experiment"].nunique() <= _NAMED:
            for row in shown[shown["worst"]].to_dict("records"):
                _label(axes, row)
        axes.set_xlabel("ASR of the planted trigger after the defense, %")
        axes.set_ylabel("ASR of the true trigger after the defense, %")
        axes.set_xlim(-0.03 * across, 1.06 * across)
        axes.set_ylim(-0.03 * up, 1.06 * up)
        if len(shown):
            axes.legend(title="plant (filled: the worst of its model)", loc="upper right", frameon=False)
        save(figure, path, vector=False)


def _points(axes: Axes, plants: pd.DataFrame, name: str, color: str) -> None:
    """The plants of one kind, each with the interval of its own rate."""
    across, up = 100 * plants["asr_after"], 100 * plants["true_asr_after"]
    left, right = across - 100 * plants["asr_after_low"], 100 * plants["asr_after_high"] - across
    axes.errorbar(across, up, xerr=[left, right], fmt="none", ecolor=color, elinewidth=0.6, alpha=0.6)
    faces = [color if worst else "white" for worst in plants["worst"]]
    axes.scatter(across, up, marker=_SHOWN.get(name, _OTHER), c=faces, edgecolors=color, s=34, label=name)


def _label(axes: Axes, row: dict[Any, Any]) -> None:
    place = 100 * row["asr_after"], 100 * row["true_asr_after"]
    axes.annotate(row["experiment"], place, xytext=(5, 4), textcoords="offset points", fontsize=7, color="#444444")
