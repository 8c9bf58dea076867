"""The one training loop: both trainings are a `Task` in it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from refine.core.errors import UserError
from refine.core.progress import progress
from refine.models.device import Compute
from refine.training.average import Average
from refine.training.batches import Batch, Batches
from refine.training.checkpoint import Checkpoints
from refine.training.guard import Guard
from refine.training.optimizer import build
from refine.training.processes import Processes
from refine.training.recipe import Recipe
from refine.training.training_set import TrainingSet

log = logging.getLogger(__name__)

LOOKED_AT = 32
"""Steps between two looks at whether the loss is finite; looking makes the processor wait for the device."""

Weights = dict[str, Tensor]


class Epochs(Protocol):
    """What a loop needs of its data; `training.batches.Batches` is one."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One epoch, in the order that the seed gives."""


@dataclass(frozen=True)
class Step:
    """What one batch gave.

    Attributes:
        loss: to be minimized, float32 scalar with gradient.
        terms: figures for the history, scalars without gradient; each is averaged over the images of an epoch.
    """

    loss: Tensor
    terms: dict[str, Tensor]


class Task(Protocol):
    """What differs between trainings.

    Attributes:
        module: what is trained, and nothing else is.
        batches: its data.
        generator: of what a step draws, such as augmentation; seeded anew for each epoch.
        kept: weights of the module that outlive their epoch, by a name that could be a file's.
    """

    kept: dict[str, Weights]

    @property
    def module(self) -> nn.Module: ...

    @property
    def batches(self) -> Epochs: ...

    @property
    def generator(self) -> Generator: ...

    def step(self, batch: Batch) -> Step:
        """Loss and figures of a batch."""

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Called with the number of epochs done, from 1, and the weights that count if training ended here."""


@runtime_checkable
class Updates(Protocol):
    """A task that changes its module in another way than by a plain step of the optimizer."""

    def update(self, optimizer: Optimizer) -> None:
        """Takes the step; the gradients of the last loss are there."""


@runtime_checkable
class BeginsEpochs(Protocol):
    """A task whose loss depends on the epoch."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, with its number from 1, also where a stopped training goes on."""


Row = dict[str, float]


class Run:
    """One training, which can stop after any epoch and go on from there in another process.

    Args:
        task: what is trained.
        recipe: how.
        name: of the training, for messages.
        seed: of batch order and of what steps draw.
        compute: where.
        checkpoints: where the state goes after each epoch; None keeps none.
    """

    def __init__(
        self, task: Task, recipe: Recipe, name: str, seed: int, compute: Compute, checkpoints: Checkpoints | None
    ) -> None:
        self._task = task
        self._recipe = recipe.lasting(len(task.batches))
        self._name = name
        self._processes = Processes(compute)
        self._checkpoints = checkpoints
        self._optimizer, self._schedule = build(task.module.parameters(), self._recipe, len(task.batches))
        self._average = Average(task.module, recipe.average)
        self._random = Generator().manual_seed(seed)
        self._history: list[Row] = []

    def train(self) -> list[Row]:
        """Trains to the end of the recipe; the module then has the weights that count.

        Returns:
            One row per epoch: `epoch` from 1, `learning_rate` of its last step, and the mean of each figure.

        Raises:
            UserError: the loss or the weights are no longer finite.
        """
        self._go_on()
        try:
            for epoch in range(len(self._history) + 1, self._recipe.epochs + 1):
                self._history.append(self._epoch(epoch))
                self._task.after_epoch(epoch, self._average.weights())
                self._save(epoch)
                self._tell(epoch)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted after {self._checkpoints.epochs} of {self._recipe.epochs} epochs of {self._name}; "
                "type `dvc repro` to go on"
                if self._checkpoints
                else ""
            ) from None
        self._task.module.load_state_dict(self._average.weights())
        self._task.module.eval()
        return self._history

    def _epoch(self, epoch: int) -> Row:
        task = self._task
        task.module.train()
        if isinstance(task, BeginsEpochs):
            task.begin_epoch(epoch)
        order, draws, rest = torch.randint(2**62, (3,), generator=self._random).tolist()
        task.generator.manual_seed(draws + self._processes.rank)
        torch.manual_seed(rest + self._processes.rank)
        sums: dict[str, Tensor] = {}
        seen = 0
        rate = 0.0
        remedy = f"lower {self._recipe.place}.optimizer.lr"
        guard = Guard(f"epoch {epoch} of {self._name}", remedy)
        total = len(task.batches)
        shown = f"{self._name} {epoch}/{self._recipe.epochs}"
        for number, batch in enumerate(progress(task.batches.epoch(order), shown, total), 1):
            step = task.step(batch)
            self._optimizer.zero_grad(set_to_none=True)
            step.loss.backward()  # type: ignore[no-untyped-call]
            rate = self._optimizer.param_groups[0]["lr"]
            if isinstance(task, Updates):
                task.update(self._optimizer)
            else:
                self._optimizer.step()
            self._schedule.step()
            self._average.update()
            seen += len(batch)
            for term, value in step.terms.items():
                sums[term] = sums.get(term, torch.zeros((), device=value.device)) + value.detach() * len(batch)
            guard.note(step.loss, number)
            if number % LOOKED_AT == 0 or number == total:
                guard.look()
        if not all(parameter.isfinite().all() for parameter in task.module.parameters()):
            raise UserError(f"the last step of epoch {epoch} of {self._name} left infinite weights; {remedy}")
        means = self._processes.mean({**sums, "seen": torch.tensor(float(seen))})
        count = means.pop("seen")
        return {"epoch": epoch, "learning_rate": rate, **{term: value / count for term, value in means.items()}}

    def _save(self, epoch: int) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(epoch, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "history": self._history,
            "module": self._task.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state(),
            "random": self._random.get_state(),
            "kept": self._task.kept,
        }

    def _go_on(self) -> None:
        found = self._checkpoints.load() if self._checkpoints else None
        state = self._processes.broadcast(found)
        if state is None:
            return
        self._task.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._average.load(state["average"])
        self._random.set_state(state["random"])
        self._history = state["history"]
        self._task.kept.update(state["kept"])
        log.info("%s goes on after epoch %d of %d", self._name, len(self._history), self._recipe.epochs)

    def _tell(self, epoch: int) -> None:
        figures = " ".join(f"{name} {value:.4f}" for name, value in self._history[-1].items() if name != "epoch")
        log.info("%s %d/%d %s", self._name, epoch, self._recipe.epochs, figures)


def batches_of(training_set: TrainingSet, recipe: Recipe, compute: Compute) -> Batches:
    """Batches as the recipe wants them, for this process.

    Raises:
        UserError: the images cannot be cut or shuffled so.
    """
    cut = recipe.batch_size, recipe.drop_last, recipe.shuffle_buffer
    try:
        return Batches(training_set, *cut, compute.device, (compute.rank, compute.world))
    except UserError as error:
        raise UserError(f"{recipe.place}: {error}") from None


def write_history(path: Path, history: list[Row]) -> None:
    """Writes the rows as CSV, six significant digits; without any, a line of names alone, as plots want a file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)
