"""What a calibration leaves for the docs: the thresholds, a table of rates, and a picture of all scores."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml
from matplotlib.figure import Figure

from refine.core.files import new_file
from refine.pictures.figure import DPI, same_everywhere, save
from refine.proof.judging.params import SignsParams
from refine.proof.judging.thresholds import FILE, Rate, Thresholds
from refine_lab.calibration.plan import CLEAN, HALVES
from refine_lab.calibration.threshold import alarms, calibrated

HEADER = "# Thresholds of the signs, see thresholds.py. Written by `refine calibrate set`.\n"
_COLORS = {False: "#00798c", True: "#d1495b"}


def write(scores: Path, home: Path | None) -> list[Path]:
    """Writes thresholds, table and picture, and a copy of the scores.

    Args:
        scores: what `measure` wrote, with the signs' own settings.
        home: folder for all of them; None means their places in the current checkout.

    Returns:
        The files.
    """
    rows = pd.read_csv(scores, keep_default_na=False)
    thresholds = calibrated(rows, SignsParams())
    docs = home or Path("docs/signs")
    files = [(home / FILE.name) if home else FILE, docs / "rates.md", docs / "scores.png", docs / "scores.csv"]
    write_thresholds(files[0], thresholds)
    for path, text in ((files[1], table(rows, thresholds)), (files[3], rows.to_csv(index=False))):
        with new_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    picture(rows, thresholds, files[2])
    return files


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Writes the YAML file that the signs read."""
    with new_file(path) as partial:
        content = yaml.safe_dump(thresholds.model_dump(), sort_keys=False, width=120, allow_unicode=True)
        partial.write_text(HEADER + content, encoding="utf-8")


def table(rows: pd.DataFrame, thresholds: Thresholds) -> str:
    """Markdown: a row for each sign, and how many models of each attack it suspects."""
    measured = rows[rows["half"] == HALVES[1]]
    attacks = sorted({*measured["attack"]} - {CLEAN})
    header = ["sign", "threshold", "true alarms", "false alarms", *attacks, "abstained", "right class"]
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join(['---'] * len(header))} |"]
    for name, sign in thresholds.signs.items():
        own = measured[measured["sign"] == name]
        suspected = alarms(own[(own["weak"] == "") & (own["score"] != "")], sign.threshold)
        found = suspected[suspected["attack"] != CLEAN]
        each = [f"{(found['attack'] == attack).sum()} of {(own['attack'] == attack).sum()}" for attack in attacks]
        alarmed = sign.true_alarms, sign.false_alarms
        abstained = sign.abstained_attacked.count + sign.abstained_clean.count
        cells = [
            f"`{name}`",
            "none" if sign.threshold is None else f"{sign.threshold:.2f}",
            *(["-"] * (2 + len(each)) if sign.threshold is None else [*map(_rate, alarmed), *each]),
            f"{abstained} of {len(own)}",
            f"{(found['hit'].astype(str) == 'True').sum()} of {len(found)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\nMeasured on {thresholds.calibrated_on}. Intervals: 95 %, Wilson.\n"


def picture(rows: pd.DataFrame, thresholds: Thresholds, path: Path) -> None:
    """Draws the score of every model, a panel for each sign and a column for each attack, of both halves."""
    signs = list(thresholds.signs)
    with same_everywhere():
        figure = Figure(figsize=(4.2 * max(len(signs), 1), 3.6), dpi=DPI, layout="constrained")
        for place, name in enumerate(signs):
            axes = figure.add_subplot(1, len(signs), place + 1)
            own = rows[(rows["sign"] == name) & (rows["score"] != "")]
            attacks = sorted({*own["attack"]}, key=lambda attack: (attack != CLEAN, attack))
            for column, attack in enumerate(attacks):
                for half, marker in zip(HALVES, "xo", strict=True):
                    scores = own[(own["attack"] == attack) & (own["half"] == half)]["score"].astype(float)
                    shifts = [column + 0.5 * (number + 0.5) / len(scores) - 0.25 for number in range(len(scores))]
                    axes.scatter(shifts, scores, s=16, marker=marker, color=_COLORS[attack != CLEAN], alpha=0.7)
            limit = thresholds.signs[name].threshold
            if limit is not None:
                axes.axhline(limit, color="#444444", linewidth=1, linestyle="--")
            axes.set_xticks(range(len(attacks)), attacks, rotation=20)
            axes.set_title(name, fontsize=10)
            axes.set_ylabel("score")
        save(figure, path, vector=False)


def _rate(rate: Rate) -> str:
    low, high = rate.interval_95
    return f"{rate.count} of {rate.of} [{100 * low:.0f}, {100 * high:.0f} %]"
