"""Splits a poisoned training set: the work of the stage split-samples."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from refine.core.files import new_folder, sha256_of, write_json
from refine.core.registry import SPLITS, component
from refine.shards.format import manifest
from refine.shards.reading.stored import open_split
from refine.shards.reading.tensors import save_tensors
from refine.splitting.folder import COLUMNS, EPOCHS, HISTORY, NAME, SAMPLES, SplitCard
from refine.splitting.groups import CLEAN, NAMES, POISONED
from refine.splitting.protocol import Outcome, Task
from refine.training.loop import write_history


def split_samples(name: str, task: Task, out: Path) -> SplitCard:
    """Splits a training set and writes the folder of the split.

    Args:
        name: of the split.
        task: what it is given.
        out: the folder.

    Raises:
        UserError: the training set is damaged or does not fit the settings.
    """
    made: Outcome = component(SPLITS, name, "splits").split(task)
    samples = open_split(task.images, task.compute.machine)
    keys, labels = samples.keys, samples.labels
    rounded = torch.tensor([float(f"{value:.9g}") for value in made.fct.tolist()], dtype=torch.float64)
    with new_folder(out) as part:
        _write_samples(part / SAMPLES, keys, labels, rounded, made.groups)
        write_history(part / HISTORY, made.history)
        epochs = torch.zeros(0, len(keys)) if made.epochs is None else made.epochs
        card = SplitCard(
            split=name,
            settings=task.settings.model_dump(),
            training_set_sha256=sha256_of(task.images / manifest.NAME),
            samples_sha256=sha256_of(part / SAMPLES),
            epochs_sha256=save_tensors(part / EPOCHS, {"fct": epochs}),
            counts={group: int((made.groups == number).sum()) for number, group in enumerate(NAMES)},
            thresholds=[rounded[made.groups == CLEAN].max().item(), rounded[made.groups == POISONED].min().item()],
            gate=made.refusal or "passed",
            abstain=made.abstain,
            figures=made.figures,
        )
        write_json(part / NAME, card.model_dump())
    return card


def _write_samples(path: Path, keys: Tensor, labels: Tensor, fct: Tensor, groups: Tensor) -> None:
    names = (NAMES[group] for group in groups.tolist())
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(keys.tolist(), labels.tolist(), fct.tolist(), names, strict=True))
