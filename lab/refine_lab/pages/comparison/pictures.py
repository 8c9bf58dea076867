"""Pictures of a comparison, as Vega-Lite and SVG: the matrix as a heat map, and a small plot for each system."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import vl_convert

from refine_lab.pages.comparison.frame import TAKES
from refine_lab.pages.comparison.ranking import averaged, ranking

VEGA_LITE = "6.4"
_CELL = {"width": 46, "height": 22}
_COLUMNS = 4
_ROOM = 24
"""Pixels around texts, as viewers draw them with wider fonts than they were measured with."""
_PANELS = (
    ("above_floor", "attack success rate above its floor, points", "#b01020", 100),
    ("ba_drop", "drop of benign accuracy, points", "#54278f", 20),
)
_MARKS = (
    ("ASR without defense", "asr_before", "tick", "#999999"),
    ("ASR", "asr", "bar", "#d1495b"),
    ("its floor", "floor", "tick", "#111111"),
    ("robust accuracy", "robust", "point", "#00798c"),
)


def heat_map(measured: pd.DataFrame) -> str:
    """SVG: a row for each system in the order of the ranking, a column for each attack, points in the cells."""
    rows = _rows(measured)
    return svg({"hconcat": [_panel(rows, *panel, first=not place) for place, panel in enumerate(_PANELS)]})


def small_multiples(measured: pd.DataFrame) -> str:
    """SVG: for each system a small plot of its figures against each attack."""
    rows = _rows(measured)
    labels = [name for name, *_ in _MARKS]
    shown = [
        {"system": row["system"], "attack": row["column"], "figure": name, "value": row[column], "mark": mark}
        for row in rows
        for name, column, mark, _ in _MARKS
    ]
    color = {
        "field": "figure",
        "type": "nominal",
        "title": None,
        "sort": labels,
        "scale": {"domain": labels, "range": [each for *_, each in _MARKS]},
        "legend": {"orient": "top"},
    }
    layers = [
        {"transform": [{"filter": f"datum.figure == '{name}'"}], "mark": _mark(mark), "encoding": {"color": color}}
        for name, _, mark, _ in _MARKS
    ]
    return svg(
        {
            "data": {"values": shown},
            "facet": {
                "field": "system",
                "type": "nominal",
                "title": None,
                "sort": _order(rows, "system"),
                "header": {"labelFontWeight": "bold"},
            },
            "columns": _COLUMNS,
            "spec": {
                "width": {"step": 22},
                "height": 90,
                "encoding": {
                    "x": {"field": "attack", "type": "nominal", "title": None, "sort": _order(rows, "column")},
                    "y": {
                        "field": "value",
                        "type": "quantitative",
                        "title": None,
                        "stack": None,
                        "axis": {"format": "~%", "tickCount": 3},
                        "scale": {"domain": [0, 1]},
                    },
                },
                "layer": layers,
            },
        }
    )


def _rows(measured: pd.DataFrame) -> list[dict[str, Any]]:
    """The cells, systems in the order of the ranking; the name of an attack that does not take tells its rate."""
    place = {system: number for number, system in enumerate(ranking(measured)["system"])}
    cells = averaged(measured)
    takes = cells.groupby("attack")["asr_before"].transform("mean")
    cells["column"] = [
        attack if rate >= TAKES else f"{attack} ({100 * rate:.0f} %)"
        for attack, rate in zip(cells["attack"], takes, strict=True)
    ]
    cells["place"] = [place.get(system, len(place)) for system in cells["system"]]
    kept: list[dict[str, Any]] = json.loads(cells.sort_values("place", kind="stable").to_json(orient="records"))
    return kept


def _order(rows: list[dict[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _panel(rows: list[dict[str, Any]], column: str, title: str, darkest: str, most: int, first: bool) -> dict[str, Any]:
    axes = {
        "x": {
            "field": "column",
            "type": "nominal",
            "title": None,
            "sort": _order(rows, "column"),
            "axis": {"orient": "top", "labelAngle": -40, "domain": False, "ticks": False},
        },
        "y": {
            "field": "system",
            "type": "nominal",
            "title": None,
            "sort": _order(rows, "system"),
            "axis": {"domain": False, "ticks": False, "labelLimit": 260} if first else None,
        },
    }
    scale = {"domain": [0, most], "clamp": True, "range": ["#fbf7f4", darkest]}
    text = {
        "text": {"field": "points", "type": "quantitative", "format": ".1f"},
        "color": {"condition": {"test": f"datum.points > {0.6 * most}", "value": "white"}, "value": "#222222"},
    }
    return {
        "title": {"text": title, "anchor": "start", "fontSize": 12},
        "data": {"values": [{**row, "points": 100 * row[column]} for row in rows]},
        "width": {"step": _CELL["width"]},
        "height": {"step": _CELL["height"]},
        "encoding": axes,
        "layer": [
            {
                "mark": {"type": "rect", "stroke": "white"},
                "encoding": {"color": {"field": "points", "type": "quantitative", "scale": scale, "legend": None}},
            },
            {"mark": {"type": "text", "fontSize": 10}, "encoding": text},
        ],
    }


def _mark(kind: str) -> dict[str, Any]:
    return {
        "tick": {"type": "tick", "thickness": 2, "width": 14},
        "bar": {"type": "bar", "width": 10},
        "point": {"type": "point", "filled": True, "size": 28},
    }[kind]


def svg(content: dict[str, Any]) -> str:
    """A drawing in Vega-Lite as SVG."""
    drawing = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "padding": _ROOM,
        "config": {"legend": {"columnPadding": _ROOM}},
        **content,
    }
    resolved = {"resolve": {"scale": {"color": "independent", "y": "shared"}}} if "hconcat" in content else {}
    return str(vl_convert.vegalite_to_svg(json.dumps({**drawing, **resolved}), vl_version=VEGA_LITE))
