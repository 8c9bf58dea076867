"""Draws what `benchmarks.scale` measured: time over the number of images, and a straight line on to a billion.

python -m benchmarks.scale_picture docs/scale.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.common import PROJECT
from refine.core.errors import command
from refine.core.files import new_file
from refine.pictures.figure import same_everywhere

_COLORS = {"read": "#30638e", "poison": "#d1495b", "evaluate": "#edae49"}
_STRANGERS = {"index": "^", "poison": "s"}
_BILLION = 1e9


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes an SVG.

    Args:
        results: of the benchmark, with the parts `sizes` and `strangers`.
        path: of the picture.
    """
    sizes = sorted(results["sizes"].values(), key=lambda entry: int(entry["images"]))
    with same_everywhere():
        mpl.rcParams.update({"svg.hashsalt": "scale", "svg.fonttype": "none"})
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        time, memory = figure.subplots(1, 2)
        for name, color in _COLORS.items():
            entries = [entry[name] for entry in sizes]
            counts = [entry["images"] for entry in entries]
            seconds = [entry["seconds"] for entry in entries]
            time.plot(counts, seconds, "o-", color=color, label=f"{name}, 32 pixels", markersize=4)
            slope = (seconds[-1] - seconds[0]) / (counts[-1] - counts[0])
            time.plot([counts[-1], _BILLION], [seconds[-1], slope * _BILLION], ":", color=color, linewidth=1)
            memory.plot(
                counts, [entry["bytes_above_start"] / 2**20 for entry in entries], "o-", color=color, markersize=4
            )
        for name, marker in _STRANGERS.items():
            entry = results["strangers"][name]
            time.plot(entry["images"], entry["seconds"], marker, color="#444444", label=f"{name}, 224 pixels")
            memory.plot(entry["images"], entry["bytes_above_start"] / 2**20, marker, color="#444444")
        _finish(time, "seconds on one core")
        _finish(memory, "MiB above the start of the process")
        memory.axhline(1024, color="#bbbbbb", linewidth=0.8)
        time.legend(frameon=False, fontsize=7)
        with new_file(path) as part:
            figure.savefig(part, format="svg", metadata=dict.fromkeys(("Creator", "Date")))


def _finish(axes: Axes, label: str) -> None:
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel("images")
    axes.tick_params(axis="x", labelrotation=30)
    axes.set_ylabel(label)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = argparse.ArgumentParser("python -m benchmarks.scale_picture", description="Draw benchmarks.scale.")
    options.add_argument("picture", type=Path)
    options.add_argument("--results", type=Path, default=PROJECT / "benchmarks/results/scale.json")
    given = options.parse_args(arguments)
    draw(json.loads(given.results.read_text(encoding="utf-8"))["results"], given.picture)


if __name__ == "__main__":
    command(main)
