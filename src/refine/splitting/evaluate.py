"""Compares a split with what is really poisoned: the work of the stage evaluate-split.

The flags that the poisoning wrote are read here alone, when the split is done.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import new_folder, write_json
from refine.core.machine import DEFAULTS, Machine
from refine.shards.reading.stored import open_split
from refine.splitting.folder import HISTORY, NAME, Grouped, read_card, read_epochs, read_samples
from refine.splitting.groups import CLEAN, NAMES, POISONED
from refine.splitting.picture import draw

_DIGITS = 6
EPOCHS = "epochs.csv"
PICTURE = "fct.png"


def evaluate_split(
    folder: Path, training_set: Path, metrics: Path, plots: Path, machine: Machine = DEFAULTS
) -> dict[str, Any]:
    """Writes figures, curves and a picture of a split.

    Args:
        folder: of the split.
        training_set: folder of the shards that were split, whose samples say whether they are `poisoned`.
        metrics: file for the figures.
        plots: folder for the curves by epoch and for the histogram of the FCT.
        machine: its settings.

    Returns:
        The figures, without those that are not defined. Cover images keep their label and do not count as poisoned.

    Raises:
        UserError: a folder is damaged, or the split is that of another training set.
    """
    card = read_card(folder, training_set)
    rows = read_samples(folder, card)
    truth = open_split(training_set, machine)
    if not torch.equal(truth.keys, rows.keys):
        raise UserError(f"{folder / NAME} is a split of other images; run `dvc repro split-samples@{folder.name}`")
    poisoned, cover = truth.images.flags("poisoned"), truth.images.flags("cover")
    figures = {
        **_judged(rows, poisoned),
        **{f"{name}_images": card.counts[name] for name in NAMES},
        "truly_poisoned": int(poisoned.sum()),
        "cover": int(cover.sum()),
        "frac_zero_fct": share(rows.fct == 0),
        "gate": card.gate,
    }
    with new_folder(plots) as part:
        _write_epochs(part / EPOCHS, folder / HISTORY, read_epochs(folder, card), poisoned)
        draw(part / PICTURE, rows.fct, poisoned, card.thresholds, f"{folder.name}: {len(rows.fct):,} training images")
    write_json(metrics, figures)
    return figures


def _judged(rows: Grouped, poisoned: Tensor) -> dict[str, float]:
    found = auroc(rows.fct, poisoned)
    return {
        **({} if found is None else {"auroc": found}),
        "clean_precision": share(~poisoned[rows.groups == CLEAN]),
        "poisoned_precision": share(poisoned[rows.groups == POISONED]),
    }


def auroc(fct: Tensor, poisoned: Tensor) -> float | None:
    """Probability that a poisoned image has the larger FCT than one that is not; None where all or none are poisoned.

    Args:
        fct: float [N].
        poisoned: bool [N].
    """
    if poisoned.all() or not poisoned.any():
        return None
    return round(float(roc_auc_score(poisoned.numpy(), fct.numpy())), _DIGITS)


def share(hits: Tensor) -> float:
    """How many of these are true, from 0 to 1."""
    return round(hits.double().mean().item(), _DIGITS)


def _write_epochs(path: Path, history: Path, epochs: Tensor, poisoned: Tensor) -> None:
    """The rows of the history with the AUROC after each epoch."""
    with history.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row, fct in zip(rows, epochs, strict=True):
        row["auroc"] = auroc(fct, poisoned)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
