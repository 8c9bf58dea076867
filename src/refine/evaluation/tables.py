"""Tables that DVC draws, as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor


def write_confusion(path: Path, predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """Each image's true class and the predicted one, from int64 [N] each."""
    rows = ((classes[true], classes[answer]) for true, answer in zip(labels.tolist(), predicted.tolist(), strict=True))
    write_csv(path, ("actual", "predicted"), rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes rows under a header."""
    pd.DataFrame(list(rows), columns=list(header)).to_csv(path, index=False, lineterminator="\n")
