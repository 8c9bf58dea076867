"""The histogram of the FCT of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from refine.pictures.figure import DPI, same_everywhere, save

_BINS = 80
_DECADES = 12
"""Below the largest value; what lies further below, zero included, is drawn at the left end."""


def draw(path: Path, fct: Tensor, poisoned: Tensor, thresholds: Sequence[float], title: str) -> None:
    """Writes a PNG: a histogram with a logarithmic axis, poisoned images in another color, and both thresholds.

    Args:
        path: of the picture.
        fct: float64 [N], at least 0.
        poisoned: bool [N].
        thresholds: the largest FCT of the clean group and the smallest of the poisoned one.
        title: of the picture.
    """
    values = fct.numpy()
    most = values.max() or 1.0
    positive = values[values > 0]
    least = max(positive.min() if len(positive) else most / 10, most / 10**_DECADES)
    shown = np.maximum(values, least)
    bins = np.geomspace(least, most * 1.0001 if most > least else least * 10, _BINS + 1)
    zero = int((values < least).sum())
    with same_everywhere():
        figure = Figure(figsize=(7.2, 4.0), dpi=DPI, layout="constrained")
        axes = figure.add_subplot(1, 1, 1, xscale="log", yscale="log", title=title)
        kinds = {"not poisoned": ~poisoned.numpy(), "poisoned": poisoned.numpy()}
        for (name, which), color in zip(kinds.items(), ("tab:blue", "tab:red"), strict=True):
            axes.hist(shown[which], bins=list(bins), label=f"{name} ({which.sum():,})", color=color, alpha=0.6)
        for value, style, name in zip(thresholds, ("--", ":"), ("clean up to", "poisoned from"), strict=True):
            axes.axvline(max(value, least), color="black", linestyle=style, label=f"{name} {value:.3g}")
        axes.set_xlabel("FCT" + (f" ({zero:,} images below {least:.0e}, drawn at the left end)" if zero else ""))
        axes.set_ylabel("images")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")  # the usual one writes formulas
            axis.set_minor_formatter(NullFormatter())
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        save(figure, path, vector=False)
