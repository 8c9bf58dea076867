"""The training loop, with a task that can be followed by hand."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refine.params.train_backdoor import BackdoorRecipe
from refine.system.errors import UserError
from refine.training.loop import Batch, Step, seeded, train, write_history


class Line:
    """Two batches, of three images and of one, whose numbers are all one; the loss is the only weight."""

    def __init__(self, values: dict[tuple[int, int], float] | None = None) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.module.weight, 1.0)
        self.batches = self
        self.values = values or {}
        self.epoch = 0
        self.number = 0
        self.calls: list[tuple[str, int, bool]] = []

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        for self.number, size in ((1, 3), (2, 1)):
            yield torch.ones(size, 1), torch.arange(size)

    def step(self, batch: Batch) -> Step:
        self.calls.append(("step", len(batch[0]), self.module.training))
        loss: Tensor = self.module(batch[0]).mean() * self.values.get((self.epoch, self.number), 1.0)
        return Step(loss, {"size": torch.tensor(float(len(batch[0]))), "loss": loss})

    def after_epoch(self, epoch: int) -> None:
        self.calls.append(("after", epoch, self.module.training))


def _recipe(**content: Any) -> BackdoorRecipe:
    plain = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    return BackdoorRecipe.model_validate({"epochs": 2, "optimiser": plain, **content})


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


def test_the_module_trains_during_steps_and_rests_after_an_epoch() -> None:
    task = Line()
    train(task, _recipe(), "test")
    epochs = [[("step", 3, True), ("step", 1, True), ("after", epoch, False)] for epoch in (1, 2)]
    assert task.calls == [*epochs[0], *epochs[1]]
    assert not task.module.training


def test_gradients_of_a_step_do_not_reach_the_next() -> None:
    task = Line()
    train(task, _recipe(epochs=1), "test")
    assert task.module.weight.item() == pytest.approx(1 - 2 * 0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_epoch_and_step(value: float) -> None:
    with pytest.raises(UserError, match=r"the loss became (nan|inf) in epoch 2, step 2 of train-test; lower recipe"):
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


def test_a_seed_gives_weights_order_and_augmentation_streams_of_their_own() -> None:
    def drawn(seed: int) -> list[list[int]]:
        order, draws = seeded(seed, torch.device("cpu"))
        return [torch.randint(10**6, (5,), generator=source).tolist() for source in (order, draws, None)]

    first, again, other = drawn(1), drawn(1), drawn(3)
    assert first == again
    assert all(one != another for one, another in zip(first, other, strict=True))
    assert first[0] != first[1]
