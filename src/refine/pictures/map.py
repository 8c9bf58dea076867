"""Maps of features: t-SNE (van der Maaten and Hinton 2008) of what a classifier sees, benign and triggered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from refine.system.files import new_file

_FEWEST = 8
"""Points that make a map; of fewer there is nothing to see."""
_NAMED = 20
"""Classes that the legend has room for, and that have a colour each."""


def embedded(features: Tensor, seed: int = 0) -> NDArray[np.float64]:
    """Places in the plane, float [n, 2], of features float [n, d]."""
    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(1):  # beside torch's own threads more of them are ten times slower
        places = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(features.numpy())
    return np.asarray(places, dtype=np.float64)


def _colours(labels: Iterable[int], classes: int) -> list[ColorType]:
    """A colour for each label, one for each of so many classes; from the 21st on they come again."""
    known = mpl.color_sequences["tab10" if classes <= 10 else "tab20"]
    return [known[label % len(known)] for label in labels]


def draw_maps(
    path: Path, maps: Sequence[tuple[str, Tensor, Tensor]], labels: tuple[Tensor, Tensor], classes: Sequence[str]
) -> None:
    """Writes a PNG with one map beside the other; a colour tells an image's true class, a cross that it is triggered.

    Args:
        path: of the picture.
        maps: a title, features of benign images float [n, d], and of triggered ones float [m, d], m may be 0.
        labels: true ones, int64 [n] and [m].
        classes: names.
    """
    clean_colours, marked_colours = (_colours(each.tolist(), len(classes)) for each in labels)
    figure = Figure(figsize=(6.4 * len(maps), 5.6), dpi=90, layout="constrained")
    for column, (title, benign, triggered) in enumerate(maps):
        axes = figure.add_subplot(1, len(maps), column + 1)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        if len(benign) + len(triggered) < _FEWEST:
            continue
        places = embedded(torch.cat([benign, triggered]))
        clean, marked = places[: len(benign)], places[len(benign) :]
        axes.scatter(clean[:, 0], clean[:, 1], s=7, alpha=0.5, linewidths=0, color=clean_colours)
        axes.scatter(marked[:, 0], marked[:, 1], s=16, marker="x", linewidths=0.8, color=marked_colours)
    seen = sorted(set(torch.cat(labels).tolist()))[:_NAMED]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=classes[label])
        for label, colour in zip(seen, _colours(seen, len(classes)), strict=True)
    ]
    if len(labels[1]):
        handles.append(Line2D([], [], marker="x", linestyle="", color="black", label="triggered"))
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    with new_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
