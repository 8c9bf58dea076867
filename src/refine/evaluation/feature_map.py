"""Maps of features: t-SNE (van der Maaten and Hinton 2008) of what a classifier sees, benign and triggered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from refine.pictures.figure import DPI, fitted, same_everywhere, save

_FEWEST = 8
"""Points that make a map; of fewer there is nothing to see."""
_NAMED = 20
"""Classes that the legend has room for, and that have a color each."""
_LEGEND = 120.0, 9.0
"""Width of a name in the legend and size of its letters, in points."""
_CROSS: dict[str, Any] = {"s": 30, "marker": "x", "linewidths": 0.9}
_DOT: dict[str, Any] = {"s": 14, "marker": "o", "linewidths": 0.4, "edgecolors": "white"}
_STAR: dict[str, Any] = {"markersize": 20, "marker": "*", "color": "black", "markerfacecolor": "none", "linestyle": ""}


@dataclass(frozen=True)
class Legend:
    """What the points of a map are.

    Attributes:
        classes: names.
        benign: true labels of the benign images, int64 [n].
        triggered: true labels of the triggered images, int64 [m].
        target: the class that the trigger leads to; None without one, or where each class has its own.
    """

    classes: Sequence[str]
    benign: Tensor
    triggered: Tensor
    target: int | None = None


def embedded(features: Tensor, seed: int = 0) -> NDArray[np.float64]:
    """Places in the plane, float [n, 2], of features float [n, d]."""
    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(1):  # beside torch's own threads more of them are ten times slower
        places = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(features.numpy())
    return np.asarray(places, dtype=np.float64)


def draw_maps(path: Path, maps: Sequence[tuple[str, Tensor, Tensor]], legend: Legend) -> None:
    """Writes a PNG, and a PDF beside it, with one map beside the other.

    A color tells an image's true class, a cross that it is triggered, a star where the benign images of the target lie.

    Args:
        path: of the picture.
        maps: a title, features of benign images float [n, d], and of triggered ones float [m, d], m may be 0.
        legend: what the points are.
    """
    with same_everywhere():
        figure = Figure(figsize=(5.6 * len(maps) + 1.6, 5.2), dpi=DPI, layout="constrained")
        for column, (title, benign, triggered) in enumerate(maps):
            axes = figure.add_subplot(1, len(maps), column + 1, xticks=[], yticks=[], title=title)
            if len(benign) + len(triggered) >= _FEWEST:
                _draw(axes, benign, triggered, legend)
        _explain(figure, legend)
        save(figure, path, vector=True)


def _draw(axes: Axes, benign: Tensor, triggered: Tensor, legend: Legend) -> None:
    """Crosses below, so that they hide no dot: their arms show beside it."""
    also = f" and {len(triggered):,} triggered" if len(triggered) else ""
    axes.set_xlabel(f"t-SNE of {len(benign):,} benign{also} images")
    places = embedded(torch.cat([benign, triggered]))
    clean, marked = places[: len(benign)], places[len(benign) :]
    axes.scatter(marked[:, 0], marked[:, 1], c=_colors(legend.triggered.tolist(), len(legend.classes)), **_CROSS)
    axes.scatter(clean[:, 0], clean[:, 1], c=_colors(legend.benign.tolist(), len(legend.classes)), **_DOT)
    own = clean[legend.benign.numpy() == legend.target] if legend.target is not None else clean[:0]
    if len(own):
        axes.plot(*np.median(own, axis=0), **_STAR)


def _explain(figure: Figure, legend: Legend) -> None:
    """A line for each class, as far as there is room, and one for each kind of mark."""
    seen = sorted(set(torch.cat([legend.benign, legend.triggered]).tolist()))
    lines = [
        (legend.classes[label], Line2D([], [], color=color, marker="o", linestyle=""))
        for label, color in zip(seen[:_NAMED], _colors(seen[:_NAMED], len(legend.classes)), strict=True)
    ]
    if len(seen) > _NAMED:
        lines.append((f"and {len(seen) - _NAMED} more classes", Line2D([], [], linestyle="")))
    if len(legend.triggered):
        lines.append(("triggered", Line2D([], [], color="black", marker="x", linestyle="")))
    if legend.target is not None:
        lines.append((f"target: {legend.classes[legend.target]}", Line2D([], [], **_STAR)))
    room, size = _LEGEND
    handles = [handle for _, handle in lines]
    drawn = figure.legend(handles, ["?"] * len(handles), loc="outside right center", frameon=False, fontsize=size)
    for text, (name, _) in zip(drawn.get_texts(), lines, strict=True):
        text.set_text(fitted(name, room, size))  # here, as a name that begins with _ would be left out above


def _colors(labels: Iterable[int], classes: int) -> list[ColorType]:
    """A color for each label, one for each of so many classes; from the 21st on they come again."""
    known = mpl.color_sequences["tab10" if classes <= 10 else "tab20"]
    return [known[label % len(known)] for label in labels]
