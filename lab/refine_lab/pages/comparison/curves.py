"""What changing one thing costs: curves over the number of images that a defender has, or over a defense's variants."""

from __future__ import annotations

from typing import Any

import pandas as pd

from refine_lab.pages.comparison.pictures import svg
from refine_lab.pages.comparison.ranking import records
from refine_lab.systems import label

_FIGURES = (("ba_drop", "drop of benign accuracy, points"), ("above_floor", "ASR above its floor, points"))
_NAMES = [name for name, _ in _FIGURES]
_BY_IMAGES = r"default|unlabeled_\d+"
"""Variants that differ in the number of images, and in what is chosen by it."""
_FEWEST = 3
"""Variants of a defense that make a curve."""


def over_images(measured: pd.DataFrame) -> str | None:
    """SVG: below each other, drop of benign accuracy and attack success rate above its floor.

    There is a column for each attack and a line for each defense, or, of a single defense, a line for each attack.

    Args:
        measured: see `frame.measurements`; several seeds are averaged.

    Returns:
        None where no defense was measured with several numbers of images; variants of other names differ in more.
    """
    alike = measured[measured["variant"].str.fullmatch(_BY_IMAGES)]
    chosen = alike[alike.groupby("defense")["images"].transform("nunique") > 1]
    if chosen.empty:
        return None
    points = chosen.groupby(["attack", "defense", "images"], sort=False)[_NAMES].mean().reset_index()
    alone = points["defense"].nunique() == 1
    return svg({"vconcat": [(_by_attack if alone else _columns)(points, *figure) for figure in _FIGURES]})


def over_variants(measured: pd.DataFrame, order: list[str]) -> str | None:
    """SVG: below each other, the same two figures, over the variants, a line for each attack.

    Args:
        measured: see `frame.measurements`; several seeds are averaged.
        order: all variants, as the list has them.

    Returns:
        None unless there is one defense alone, with three variants or more that have equally many images.
    """
    if measured["defense"].nunique() > 1 or measured["images"].nunique() > 1:
        return None
    variants = [variant for variant in dict.fromkeys(order) if variant in {*measured["variant"]}]
    if len(variants) < _FEWEST:
        return None
    points = measured.groupby(["attack", "variant"], sort=False)[_NAMES].mean().reset_index()
    return svg({"vconcat": [_lines(points, variants, *figure) for figure in _FIGURES]})


def _columns(points: pd.DataFrame, figure: str, title: str) -> dict[str, Any]:
    values = [{**line, "defense": label(line["defense"]), "points": 100 * line[figure]} for line in records(points)]
    attacks = [*dict.fromkeys(points["attack"])]
    return {
        "data": {"values": values},
        "facet": {"field": "attack", "type": "nominal", "title": None, "sort": attacks},
        "spec": {"width": 220, **_curve(_images(points), title, "defense")},
    }


def _by_attack(points: pd.DataFrame, figure: str, title: str) -> dict[str, Any]:
    values = [{**line, "points": 100 * line[figure]} for line in records(points)]
    return {"data": {"values": values}, "width": 360, **_curve(_images(points), title, "attack")}


def _images(points: pd.DataFrame) -> dict[str, Any]:
    return {
        "field": "images",
        "type": "quantitative",
        "scale": {"type": "log"},
        "axis": {"values": sorted({*points["images"].tolist()}), "format": ",.0f", "labelOverlap": True},
        "title": "images of the defender",
    }


def _lines(points: pd.DataFrame, variants: list[str], figure: str, title: str) -> dict[str, Any]:
    values = [{**line, "points": 100 * line[figure]} for line in records(points)]
    x = {"field": "variant", "type": "nominal", "sort": variants, "axis": {"labelAngle": 0}, "title": None}
    return {"data": {"values": values}, "width": 90 * len(variants), **_curve(x, title, "attack")}


def _curve(x: dict[str, Any], title: str, color: str) -> dict[str, Any]:
    return {
        "height": 160,
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": x,
            "y": {"field": "points", "type": "quantitative", "title": title},
            "color": {"field": color, "type": "nominal", "title": None, "legend": {"orient": "top"}},
        },
    }
