"""Maps of features: t-SNE (van der Maaten and Hinton 2008) of what a classifier sees, benign and triggered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from refine.system.files import new_file

_FEWEST = 8
"""Points that make a map; of fewer there is nothing to see."""


def embedded(features: Tensor, seed: int = 0) -> NDArray[np.float64]:
    """Places in the plane, float [n, 2], of features float [n, d]."""
    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(1):  # beside torch's own threads more of them are ten times slower
        places = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(features.numpy())
    return np.asarray(places, dtype=np.float64)


def draw_maps(path: Path, maps: Sequence[tuple[str, Tensor, Tensor]], labels: Tensor, classes: Sequence[str]) -> None:
    """Writes a PNG with one map beside the other.

    Args:
        path: of the picture.
        maps: a title, features of benign images float [n, d], and of triggered ones float [m, d], m may be 0.
        labels: int64 [n], of the benign images.
        classes: names.
    """
    figure = Figure(figsize=(6.4 * len(maps), 5.6), dpi=90, layout="constrained")
    for column, (title, benign, triggered) in enumerate(maps):
        axes = figure.add_subplot(1, len(maps), column + 1)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        if len(benign) + len(triggered) < _FEWEST:
            continue
        places = embedded(benign.new_tensor(np.concatenate([benign.numpy(), triggered.numpy()])))
        for label in sorted(set(labels.tolist())):
            own = places[: len(benign)][(labels == label).numpy()]
            axes.scatter(own[:, 0], own[:, 1], s=9, color=mpl.colormaps["tab20"](label % 20), label=classes[label])
        if len(triggered):
            marked = places[len(benign) :]
            axes.scatter(marked[:, 0], marked[:, 1], s=26, marker="x", color="black", linewidths=0.9, label="triggered")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[-21:], names[-21:], loc="outside right center", frameon=False, markerscale=1.6)
    with new_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
