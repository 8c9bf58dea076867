"""The training loop, with a task that can be followed by hand."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refine.backdoor.params import BackdoorRecipe
from refine.core.errors import UserError
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.compilation import compiled
from refine.training.guard import Guard
from refine.training.loop import Row, Run, Step, Weights, write_history
from tiny import CPU, same_tensors


class Line:
    """Two batches, of three images and of one, whose numbers are all one; the loss is the only weight."""

    def __init__(self, values: dict[tuple[int, int], float] | None = None) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.module.weight, 1.0)
        self.batches = self
        self.generator = torch.Generator()
        self.kept: dict[str, Weights] = {}
        self.values = values or {}
        self.seeds: list[int] = []
        self.drawn: list[list[float]] = []
        self.number = 0
        self.calls: list[tuple[str, int, bool]] = []

    def __len__(self) -> int:
        return 2

    def epoch(self, seed: int) -> Iterator[Batch]:
        self.seeds.append(seed)
        for self.number, size in ((1, 3), (2, 1)):
            yield Batch(torch.ones(size, 1), ())

    def step(self, batch: Batch) -> Step:
        self.calls.append(("step", len(batch), self.module.training))
        self.drawn.append([torch.rand(1, generator=self.generator).item(), torch.rand(1).item()])
        loss: Tensor = self.module(batch.pixels).mean() * self.values.get((len(self.seeds), self.number), 1.0)
        return Step(loss, {"size": torch.tensor(float(len(batch))), "loss": loss})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        self.calls.append(("after", epoch, self.module.training))
        self.kept[str(epoch)] = {name: tensor.clone() for name, tensor in weights.items()}


def train(task: Any, recipe: BackdoorRecipe, name: str, seed: int = 1) -> list[Row]:
    """A whole run without checkpoints."""
    return Run(task, recipe, name, seed, CPU, None).train()


def _recipe(**content: Any) -> BackdoorRecipe:
    plain = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    return BackdoorRecipe.model_validate({"epochs": 2, "optimizer": plain, **content})


def test_a_row_holds_means_over_the_images_of_an_epoch() -> None:
    rows = train(Line(), _recipe(schedule={"milestones": [0.5], "factor": 0.5}), "test")
    assert [list(row) for row in rows] == [["epoch", "learning_rate", "size", "loss"]] * 2
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["size"] for row in rows] == [(3 * 3 + 1) / 4] * 2
    assert rows[0]["loss"] == pytest.approx((3 * 1.0 + 0.9) / 4)
    assert rows[1]["loss"] == pytest.approx((3 * 0.8 + 0.75) / 4)


def test_the_learning_rate_of_a_row_is_that_of_the_epochs_last_step() -> None:
    rows = train(Line(), _recipe(schedule={"milestones": [0.5], "factor": 0.5}), "test")
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1, 0.05])


def test_the_module_trains_during_steps_and_rests_in_the_end() -> None:
    task = Line()
    train(task, _recipe(), "test")
    epochs = [[("step", 3, True), ("step", 1, True), ("after", epoch, True)] for epoch in (1, 2)]
    assert task.calls == [*epochs[0], *epochs[1]]
    assert not task.module.training


def test_gradients_of_a_step_do_not_reach_the_next() -> None:
    task = Line()
    train(task, _recipe(epochs=1), "test")
    assert task.module.weight.item() == pytest.approx(1 - 2 * 0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_epoch_and_step(value: float) -> None:
    with pytest.raises(
        UserError, match=r"the loss became (nan|inf) in step 2 of epoch 2 of train-test; lower train_backdoor\.recipe"
    ):
        train(Line({(2, 2): value}), _recipe(epochs=3), "train-test")


def test_each_epoch_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(Line(), _recipe(), "train-test")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("train-test 1/2 learning_rate 0.1000 size 2.5000 loss 0.97")
    assert len(said) == 2


def test_the_history_is_a_table_of_six_digits(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": 1234567.0}])
    text = (tmp_path / "history.csv").read_bytes().decode()
    assert text == "epoch,loss\n1,0.333333\n2,1.23457e+06\n"
    with (tmp_path / "history.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_seed_gives_each_epoch_an_order_and_draws_of_its_own() -> None:
    first, again, other = Line(), Line(), Line()
    for task, seed in ((first, 1), (again, 1), (other, 2)):
        train(task, _recipe(), "test", seed)
    assert (first.seeds, first.drawn) == (again.seeds, again.drawn)
    assert len({*first.seeds, *other.seeds}) == 4
    draws = [value for pair in first.drawn + other.drawn for value in pair]
    assert len(set(draws)) == len(draws)


def test_processes_share_the_order_of_an_epoch_and_draw_each_their_own() -> None:
    """Two that drew alike would augment different images alike, and a batch would hold half as many changes."""
    tasks = [Line(), Line()]
    for rank, task in enumerate(tasks):
        Run(task, _recipe(), "test", 1, replace(CPU, rank=rank), None).train()
    assert tasks[0].seeds == tasks[1].seeds
    draws = [value for task in tasks for pair in task.drawn for value in pair]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("later", [0.5, math.nan, math.inf])
def test_the_first_infinite_loss_is_told_however_late_somebody_looks(value: float, later: float) -> None:
    guard = Guard("epoch 4 of a test", "lr")
    for number in range(1, 101):
        guard.note(torch.tensor(value if number == 3 else later if number > 3 else 1.0), number)
    with pytest.raises(UserError, match=rf"the loss became {value} in step 3 of epoch 4 of a test"):
        guard.look()


class Long(Line):
    """One batch after the other, a hundred in each epoch; the weight is that of each step's loss."""

    def __len__(self) -> int:
        return 100

    def epoch(self, seed: int) -> Iterator[Batch]:
        self.seeds.append(seed)
        for self.number in range(1, 101):
            yield Batch(torch.ones(1, 1), ())


@pytest.mark.parametrize(("epoch", "step"), [(1, 3), (1, 32), (2, 33), (1, 100)])
def test_a_training_names_the_step_although_it_looks_now_and_then(epoch: int, step: int) -> None:
    task = Long({(epoch, step): math.nan})
    with pytest.raises(UserError, match=rf"the loss became nan in step {step} of epoch {epoch} of train-test;"):
        train(task, _recipe(), "train-test")
    assert len(task.calls) - epoch + 1 <= (epoch - 1) * 100 + step + 31


def test_finite_losses_pass() -> None:
    guard = Guard("a test", "lr")
    for number in range(1, 5):
        guard.note(torch.tensor(1e30), number)
        guard.look()


class Numbered(nn.Module):
    """One weight, and a count of its uses such as batch normalization has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("seen", torch.tensor(0.0))

    def forward(self, pixels: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return pixels * self.weight


def test_the_moving_average_of_weights_and_statistics_is_what_counts() -> None:
    task = Line()
    task.module = Numbered()  # type: ignore[assignment]
    decay = 0.75
    train(task, _recipe(average=decay, schedule={"milestones": []}), "test")
    weight = seen = None
    after_epochs = []
    for step in range(1, 5):
        now = 1.0 - 0.1 * step
        weight = now if weight is None else decay * weight + (1 - decay) * now
        seen = step if seen is None else decay * seen + (1 - decay) * step
        after_epochs.append((weight, seen))
    state = task.module.state_dict()
    assert (state["weight"].item(), state["seen"].item()) == pytest.approx(after_epochs[3])
    assert task.kept["1"]["weight"].item() == pytest.approx(after_epochs[1][0])


def test_without_an_average_the_last_weights_count() -> None:
    task = Line()
    train(task, _recipe(schedule={"milestones": []}), "test")
    assert task.module.weight.item() == pytest.approx(1 - 4 * 0.1)
    assert task.kept["1"]["weight"].item() == pytest.approx(1 - 2 * 0.1)


def test_a_compiler_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    expected = r"^train_backdoor\.recipe\.compile is on, but torch cannot compile here \(no compiler found\); install"
    with pytest.raises(UserError, match=expected):
        compiled(nn.Identity(), _recipe(compile=True))
    module = nn.Identity()
    assert compiled(module, _recipe(compile=False)) is module


def _interrupt(task: Line, at: int) -> None:
    """Lets the end of an epoch be the end of its process."""
    finished = task.after_epoch

    def after_epoch(epoch: int, weights: Weights) -> None:
        if epoch == at:
            raise KeyboardInterrupt
        finished(epoch, weights)

    task.after_epoch = after_epoch  # type: ignore[method-assign]


def _whole_and_resumed(folder: Path) -> tuple[Line, Line]:
    """A run of four epochs that nobody interrupts, and what goes on where another was interrupted in its third."""
    whole, first, second = Line(), Line(), Line()
    train(whole, _recipe(epochs=4), "test")
    kept = Checkpoints(folder)
    _interrupt(first, 3)
    with pytest.raises(KeyboardInterrupt):
        Run(first, _recipe(epochs=4), "test", 1, CPU, kept).train()
    Run(second, _recipe(epochs=4), "test", 1, CPU, kept).train()
    return whole, second


def test_what_a_run_kept_is_still_there_after_an_interruption(tmp_path: Path) -> None:
    whole, resumed = _whole_and_resumed(tmp_path)
    assert [name for name, number, _ in resumed.calls if name == "after"] == ["after"] * 2
    assert resumed.kept.keys() == whole.kept.keys()
    assert all(same_tensors(resumed.kept[epoch], whole.kept[epoch]) for epoch in whole.kept)


def test_an_interrupted_run_goes_on_with_the_order_and_the_draws_that_were_to_come(tmp_path: Path) -> None:
    whole, resumed = _whole_and_resumed(tmp_path)
    assert resumed.seeds == whole.seeds[2:]
    assert resumed.drawn == whole.drawn[len(whole) * 2 :]


def test_infinite_weights_are_not_saved_though_the_loss_was_finite(tmp_path: Path) -> None:
    class Overflow(Line):
        def step(self, batch: Batch) -> Step:
            loss = super().step(batch).loss
            zero = self.module.weight.sum() - self.module.weight.detach().sum()  # whose square root is vertical
            last = (len(self.seeds), self.number) == (2, 2)
            return Step(loss + zero.sqrt() if last else loss, {"loss": loss.detach()})

    kept = Checkpoints(tmp_path)
    where = "last step of epoch 2 of test left infinite weights; lower train_backdoor.recipe.optimizer.lr"
    with pytest.raises(UserError, match=where):
        Run(Overflow(), _recipe(epochs=3), "test", 1, CPU, kept).train()
    assert kept.epochs == 1
