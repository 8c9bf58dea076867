"""Draws what `benchmarks.scale` measured: time over the number of images, and a straight line on to a billion.

python -m benchmarks.scale_picture docs/scale.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import PROJECT
from refine.core.errors import command
from refine.pictures.figure import DPI, same_everywhere, save

_COLORS = {"read": "#30638e", "poison": "#d1495b", "evaluate": "#edae49"}
_STRANGERS = {"index": "^", "poison": "s"}
_BILLION = 1e9


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes a PNG.

    Args:
        results: of the benchmark, with the parts `sizes` and `strangers`.
        path: of the picture.
    """
    with same_everywhere():
        figure = Figure(figsize=(8, 3.6), dpi=DPI, layout="constrained")
        time, memory = figure.subplots(1, 2)
        for name, color in _COLORS.items():
            entries = [entry[name] for entry in results["sizes"].values()]
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
        save(figure, path, vector=False)


def _finish(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("images")
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
