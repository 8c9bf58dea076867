"""What fewer images cost: a curve for each defense over the number of images that the defender has."""

from __future__ import annotations

from typing import Any

import pandas as pd

from refine_lab.pages.comparison.pictures import svg
from refine_lab.pages.comparison.ranking import records
from refine_lab.systems import label

_FIGURES = (("ba_drop", "drop of benign accuracy, points"), ("above_floor", "ASR above its floor, points"))


def over_images(measured: pd.DataFrame) -> str | None:
    """SVG: below each other, drop of benign accuracy and attack success rate above its floor, a column for each attack.

    Args:
        measured: see `frame.measurements`; several seeds are averaged.

    Returns:
        None where no defense was measured with several numbers of images.
    """
    several = measured.groupby("defense")["images"].transform("nunique") > 1
    if not several.any():
        return None
    names = [name for name, _ in _FIGURES]
    points = measured[several].groupby(["attack", "defense", "images"], sort=False)[names].mean().reset_index()
    attacks = [*dict.fromkeys(points["attack"])]
    return svg({"vconcat": [_row(points, attacks, *figure) for figure in _FIGURES]})


def _row(points: pd.DataFrame, attacks: list[str], figure: str, title: str) -> dict[str, Any]:
    values = [{**line, "defense": label(line["defense"]), "points": 100 * line[figure]} for line in records(points)]
    return {
        "data": {"values": values},
        "facet": {"field": "attack", "type": "nominal", "title": None, "sort": attacks},
        "spec": {
            "width": 220,
            "height": 160,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": {
                    "field": "images",
                    "type": "quantitative",
                    "scale": {"type": "log"},
                    "axis": {
                        "values": sorted({line["images"] for line in values}),
                        "format": ",.0f",
                        "labelOverlap": True,
                    },
                    "title": "images of the defender",
                },
                "y": {"field": "points", "type": "quantitative", "title": title},
                "color": {"field": "defense", "type": "nominal", "title": None, "legend": {"orient": "top"}},
            },
        },
    }
