"""The one training loop: both trainings are a `Task` in it."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from refine.params.recipe import Recipe
from refine.system.errors import UserError
from refine.system.progress import progress
from refine.training.optimiser import build

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]


class Batches(Protocol):
    """What a loop needs of its data."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """One epoch."""


@dataclass(frozen=True)
class Step:
    """What one batch gave.

    Attributes:
        loss: to be minimised, float32 scalar with gradient.
        terms: figures for the history, scalars without gradient; each is averaged over the images of an epoch.
    """

    loss: Tensor
    terms: dict[str, Tensor]


class Task(Protocol):
    """What differs between trainings.

    Attributes:
        module: what is trained, and nothing else is.
        batches: its data.
    """

    @property
    def module(self) -> nn.Module: ...

    @property
    def batches(self) -> Batches: ...

    def step(self, batch: Batch) -> Step:
        """Loss and figures of a batch."""

    def after_epoch(self, epoch: int) -> None:
        """Called with the number of epochs done, from 1."""


Row = dict[str, float]


def train(task: Task, recipe: Recipe, name: str) -> list[Row]:
    """Trains to the end of the recipe.

    Returns:
        One row per epoch: `epoch` from 1, `learning_rate` of its last step, and the mean of each figure.

    Raises:
        UserError: the loss is no longer finite.
    """
    optimiser, schedule = build(task.module.parameters(), recipe, len(task.batches))
    history: list[Row] = []
    for epoch in range(1, recipe.epochs + 1):
        task.module.train()
        sums: dict[str, Tensor] = {}
        seen = 0
        rate = 0.0
        for number, batch in enumerate(progress(task.batches, f"{name} {epoch}/{recipe.epochs}", len(task.batches)), 1):
            step = task.step(batch)
            optimiser.zero_grad(set_to_none=True)
            step.loss.backward()  # type: ignore[no-untyped-call]
            rate = optimiser.param_groups[0]["lr"]
            optimiser.step()
            schedule.step()
            seen += len(batch[0])
            for term, value in step.terms.items():
                sums[term] = sums.get(term, torch.zeros((), device=value.device)) + value.detach() * len(batch[0])
            _refuse_infinite(step.loss, name, epoch, number)
        row: Row = {"epoch": epoch, "learning_rate": rate, **{term: (sums[term] / seen).item() for term in sums}}
        history.append(row)
        task.module.eval()
        task.after_epoch(epoch)
        log.info("%s %d/%d %s", name, epoch, recipe.epochs, _told(row))
    return history


def _told(row: Row) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")


def _refuse_infinite(loss: Tensor, name: str, epoch: int, number: int) -> None:
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(f"the loss became {value} in epoch {epoch}, step {number} of {name}; lower recipe.optimiser.lr")


def write_history(path: Path, history: list[Row]) -> None:
    """Writes the rows as CSV, six significant digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)


def seeded(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Seeds torch's global state (initial weights), and gives generators for the order and for augmentation."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed + 1)
