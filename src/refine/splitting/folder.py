"""Reading the folder of a split: `samples.csv`, `split.json`, `history.csv` and the FCT after each epoch."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.core.strict import Strict
from refine.shards.format import manifest
from refine.shards.reading.tensors import load_tensors
from refine.splitting.groups import NAMES

NAME = "split.json"
SAMPLES = "samples.csv"
HISTORY = "history.csv"
EPOCHS = "epochs.safetensors"
COLUMNS = ["key", "label", "fct", "group"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SplitCard(Strict):
    """Content of `split.json`.

    Attributes:
        split: its name.
        settings: all of them, including published defaults.
        training_set_sha256: of the manifest of the training set.
        samples_sha256: of `samples.csv`.
        epochs_sha256: of `epochs.safetensors`.
        counts: images of each group.
        thresholds: the largest FCT of the clean group and the smallest of the poisoned one.
        gate: `passed`, or why the groups cannot be trusted.
        abstain: whether a defense should leave the classifier as it is because of the gate.
        figures: of the component.
    """

    split: Annotated[str, Field(max_length=200)]
    settings: dict[str, Any]
    training_set_sha256: Sha256
    samples_sha256: Sha256
    epochs_sha256: Sha256
    counts: dict[str, int]
    thresholds: Annotated[list[float], Field(min_length=2, max_length=2)]
    gate: Annotated[str, Field(max_length=1000)]
    abstain: bool
    figures: dict[str, float]


@dataclass(frozen=True)
class Grouped:
    """The rows of `samples.csv`.

    Attributes:
        keys: int64 [N], ascending.
        labels: int64 [N], as given in the training set.
        fct: float64 [N].
        groups: int64 [N], see `splitting.groups`.
    """

    keys: Tensor
    labels: Tensor
    fct: Tensor
    groups: Tensor


def read_card(folder: Path, training_set: Path) -> SplitCard:
    """The card of a split.

    Args:
        folder: of the split.
        training_set: folder of the shards that it has to be made of.

    Raises:
        UserError: the folder is missing or damaged, or another training set was split.
    """
    name = folder.name
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; list {name} in `splits` of params.yaml and run `dvc repro`")
    card = read_document(folder / NAME, SplitCard, _remedy(folder))
    if card.training_set_sha256 != sha256_of(training_set / manifest.NAME):
        raise UserError(f"{folder} is the split of another training set than {training_set}; {_remedy(folder)}")
    return card


def read_samples(folder: Path, card: SplitCard) -> Grouped:
    """The rows of a split.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / SAMPLES
    if not path.is_file() or sha256_of(path) != card.samples_sha256:
        raise UserError(f"{path} is not the file that {NAME} names; {_remedy(folder)}")
    try:
        return _parsed(path)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path} cannot be used ({str(error)[:200]}); {_remedy(folder)}") from None


def _parsed(path: Path) -> Grouped:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    if header != COLUMNS:
        raise ValueError("its columns have other names")
    read = [(int(key), int(label), float(fct), NAMES.index(group)) for key, label, fct, group in rows]
    keys, labels, fct, groups = zip(*read, strict=True)
    found = Grouped(
        torch.tensor(keys), torch.tensor(labels), torch.tensor(fct, dtype=torch.float64), torch.tensor(groups)
    )
    if not bool((found.keys.diff() > 0).all()) or not bool((found.fct.isfinite() & (found.fct >= 0)).all()):
        raise ValueError("keys do not ascend, or an FCT is no number from 0")
    return found


def read_epochs(folder: Path, card: SplitCard) -> Tensor:
    """The FCT after each epoch, float32 [E, N].

    Raises:
        UserError: the file is damaged.
    """
    return load_tensors(folder / EPOCHS, card.epochs_sha256, _remedy(folder))["fct"]


def _remedy(folder: Path) -> str:
    return f"run `dvc repro split-samples@{folder.name}`"
