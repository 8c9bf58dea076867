"""Tables of a comparison: Markdown for a page, CSV for programs, LaTeX for a paper."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from refine_lab.lists.rows import Rows
from refine_lab.pages.cells import NONE, percent
from refine_lab.pages.comparison.frame import TAKES, measurements
from refine_lab.pages.comparison.ranking import averaged, ranking, records
from refine_lab.pages.tables import markdown

_SHARES = ("ba", "asr")


def ranked(listed: Rows, project: Path) -> str:
    """The ranking in Markdown."""
    measured = measurements(listed, project)
    if measured.empty:
        return "Not yet run."
    table = ranking(measured)
    lines = [
        {
            "": str(place),
            "defense": line["system"],
            **_had(line),
            "attacks": str(line["attacks"]),
            "worst ASR above its floor": worst(line),
            "mean DER": f"{line['der']:.3f}",
            "largest BA drop": points(line["ba_drop"]),
            "largest loss of robust accuracy": points(line["robust_loss"]),
            "largest ASR after retuning": retuned(line, of_several=True),
            "minutes": minutes(line["minutes"]),
        }
        for place, line in enumerate(records(table), 1)
    ]
    weak = sorted(set(measured["attack"]) - set(measured[measured["asr_before"] >= TAKES]["attack"]))
    left = f" Left out, as they succeed less often without defense: {', '.join(f'`{each}`' for each in weak)}."
    note = f"Over the attacks with an ASR of at least {percent(TAKES)} without defense."
    return f"{markdown(pd.DataFrame(lines))}\n\n{note}{left if weak else ''}{_missing(listed, len(measured))}"


def _missing(listed: Rows, recorded: int) -> str:
    """A sentence on rows of a list that are not recorded yet."""
    wanted = sum(row.attack != "none" for row in listed.rows)
    if recorded == wanted:
        return ""
    return (
        f" {recorded} of the {wanted} runs of the list are recorded; a defense that lacks attacks comes behind others."
    )


def compared(listed: Rows, project: Path) -> str:
    """A line for each measurement in Markdown, attack by attack."""
    measured = measurements(listed, project)
    if measured.empty:
        return "Not yet run."
    return markdown(pd.DataFrame([_line(cell) for cell in records(averaged(measured))])) + _trained_anew(measured)


def _trained_anew(measured: pd.DataFrame) -> str:
    """A sentence on attacks whose classifier is not the same in all rows: another machine or code trained it anew."""
    trainings = measured.groupby(["attack", "seed", "settings"], sort=False)["classifier"].nunique()
    attacks = dict.fromkeys(attack for attack, *_ in trainings[trainings > 1].index)
    if not attacks:
        return ""
    named = ", ".join(f"`{attack}`" for attack in attacks)
    return f"\n\nThe classifier of {named} was trained more than once, so not all of these rows defend the same one."


def latex(measured: pd.DataFrame) -> str:
    """A row for each system, a column for each attack: BA / ASR in percent, with their deviations over seeds."""
    attacks = [*dict.fromkeys(measured["attack"])]
    rows = [
        [system.replace("&", r"\&"), *(_cell(measured, attack, system) for attack in attacks)]
        for system in ranking(measured)["system"]
    ]
    header = ["defense", *(attack.replace("_", r"\_") for attack in attacks)]
    table = pd.DataFrame(rows, columns=header)
    return table.to_markdown(index=False, tablefmt="latex_raw", disable_numparse=True)


def _cell(measured: pd.DataFrame, attack: str, system: str) -> str:
    own = measured[(measured["attack"] == attack) & (measured["system"] == system)]
    return " / ".join(_with_deviation([*own[name]]) for name in _SHARES if len(own))


def _with_deviation(shares: list[float]) -> str:
    mean = f"{100 * fmean(shares):.1f}"
    return f"${mean}$" if len(shares) == 1 else f"${mean} \\pm {100 * stdev(shares):.1f}$"


def _line(cell: dict[str, Any]) -> dict[str, str]:
    return {
        "attack": f"`{cell['attack']}`",
        "defense": str(cell["system"]),
        "BA": _change(cell, "ba"),
        "BA drop": points(cell["ba_drop"]),
        "ASR": _change(cell, "asr"),
        "floor": percent(cell["floor"]),
        "ASR above floor": f"{points(cell['above_floor'])} {_range(cell)}",
        "robust accuracy": percent(cell["robust"]),
        "DER": f"{cell['der']:.3f}",
        "ASR after retuning": retuned(cell),
        "minutes": minutes(cell["minutes"]),
        "seeds": str(cell["seeds"]),
    }


def _had(line: dict[str, Any]) -> dict[str, str]:
    """What the defender had and did."""
    images = NONE if isnan(line["images"]) else f"{line['images']:,.0f}"
    changes = {True: "yes", False: "no"}.get(line["changes_classifier"], NONE)
    return {"data regime": f"`{line['regime']}`", "images": images, "changes weights": changes}


def retuned(line: dict[str, Any], of_several: bool = False) -> str:
    """Points above a clean model, or the rate itself where there is no such model, with the benign accuracy then.

    Args:
        line: of a measurement, or of a ranking.
        of_several: the line is of a ranking, whose benign accuracy is the least one over all attacks.
    """
    if isnan(line["asr_retuned"]):
        return NONE
    least = "≥ " if of_several else ""
    everything = _with_ba(line, "", least)
    if isnan(line["asr_retuned_transform"]):
        return everything
    return f"{everything}; transform alone: {_with_ba(line, '_transform', least)}"


def _with_ba(line: dict[str, Any], ending: str, least: str) -> str:
    above, itself = line[f"retuned{ending}"], line[f"asr_retuned{ending}"]
    figure = f"{percent(itself)} itself" if isnan(above) else points(above)
    return f"{figure} (BA {least}{percent(line[f'ba_retuned{ending}'])})"


def _change(cell: dict[str, Any], name: str) -> str:
    return f"{percent(cell[f'{name}_before'])} → {percent(cell[name])}"


def points(share: float) -> str:
    """A difference of shares in points, with one decimal."""
    return f"{100 * share:z.1f}"  # z: never -0.0


def worst(line: dict[str, Any]) -> str:
    """The worst attack success rate above its floor in a line of the ranking, with its interval and its attack."""
    return f"{points(line['above_floor'])} {_range(line)}, `{line['worst']}`"


def _range(line: dict[str, Any]) -> str:
    return f"[{points(line['above_floor_low'])}, {points(line['above_floor_high'])}]"


def minutes(value: float) -> str:
    """Minutes with one decimal, where they are known."""
    return NONE if isnan(value) else f"{value:.1f}"
