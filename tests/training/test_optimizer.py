"""Learning rates of both schedules, and the optimizers behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from refine.backdoor.params import BackdoorRecipe
from refine.defenses.refine.training.params import RefineRecipe
from refine.training.optimizer import build, factor_of
from refine.training.recipe import Schedule


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2))]


def _factors_of_epochs(schedule: Schedule, epochs: int, steps: int) -> list[float]:
    factor = factor_of(schedule, epochs, steps)
    by_epoch = [[factor(epoch * steps + step) for step in range(steps)] for epoch in range(epochs)]
    assert all(len(set(factors)) == 1 for factors in by_epoch)
    return [factors[0] for factors in by_epoch]


@pytest.mark.parametrize(("schedule", "last"), [(Schedule(), 0.01), (RefineRecipe().schedule, 0.64)])
def test_the_papers_steps_come_after_epochs_100_and_130_of_150(schedule: Schedule, last: float) -> None:
    factors = _factors_of_epochs(schedule, 150, 3)
    assert factors[:100] == [1.0] * 100
    assert factors[100:130] == [schedule.factor] * 30
    assert factors[130:] == [schedule.factor**2] * 20
    assert factors[-1] == pytest.approx(last)


@pytest.mark.parametrize("epochs", [150, 30, 15, 10, 3])
def test_the_steps_of_a_short_run_are_in_proportion(epochs: int) -> None:
    optimizer = optim.SGD(_parameters(), lr=1.0)
    reference = optim.lr_scheduler.MultiStepLR(optimizer, [round(epochs * 2 / 3), round(epochs * 13 / 15)], 0.1)
    expected = []
    for _ in range(epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert _factors_of_epochs(Schedule(), epochs, 4) == pytest.approx(expected)


def test_milestones_and_factor_can_be_chosen() -> None:
    schedule = Schedule(milestones=[0.5], factor=0.5)
    assert _factors_of_epochs(schedule, 4, 2) == [1.0, 1.0, 0.5, 0.5]
    assert _factors_of_epochs(Schedule(milestones=[]), 4, 2) == [1.0] * 4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(epochs=st.integers(1, 20), steps=st.integers(1, 30), warmup=st.floats(0.05, 0.95))
def test_one_cycle_rises_to_the_peak_and_falls_to_zero_in_straight_lines(
    epochs: int, steps: int, warmup: float
) -> None:
    factor = factor_of(Schedule(name="one_cycle", warmup=warmup), epochs, steps)
    total = epochs * steps
    middles = np.arange(total) + 0.5
    expected = np.interp(middles, [0, warmup * total, total], [0, 1, 0])
    assert [factor(step) for step in range(total)] == pytest.approx(expected.tolist(), abs=1e-9)
    assert all(0 < factor(step) <= 1 for step in range(total))
    assert factor(total) == 0


@pytest.mark.parametrize("epochs", [1, 7, 100])
def test_a_cosine_is_torchs(epochs: int) -> None:
    optimizer = optim.SGD(_parameters(), lr=1.0)
    reference = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=0.1)
    expected = []
    for _ in range(epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert _factors_of_epochs(Schedule(name="cosine", floor=0.1), epochs, 4) == pytest.approx(expected)


def test_a_cosine_may_be_led_to_by_a_straight_line() -> None:
    plain = factor_of(Schedule(name="cosine", floor=0.001), 20, 5)
    rising = factor_of(Schedule(name="cosine", floor=0.001, rise=0.1, start=0.02), 20, 5)
    assert [rising(step) for step in range(10, 100)] == [plain(step) for step in range(10, 100)]
    expected = np.interp(np.arange(10), [0, 10], [0.02, plain(10)])
    assert [rising(step) for step in range(10)] == pytest.approx(expected.tolist())
    assert rising(0) == 0.02


def _optimizer(**content: Any) -> tuple[optim.Optimizer, optim.lr_scheduler.LambdaLR]:
    return build(_parameters(), BackdoorRecipe.model_validate(content), steps_per_epoch=5)


def test_the_papers_optimizer_is_sgd_with_momentum_and_decay() -> None:
    optimizer, _ = _optimizer()
    assert isinstance(optimizer, optim.SGD)
    settings_used = optimizer.param_groups[0]
    assert {name: settings_used[name] for name in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "nesterov": False,
    }


def test_nesterov_and_adamw_are_passed_on() -> None:
    first, _ = _optimizer(optimizer={"lr": 0.1, "nesterov": True, "momentum": 0.8})
    second, _ = _optimizer(optimizer={"name": "adamw", "lr": 0.003, "weight_decay": 0.02})
    assert first.param_groups[0]["nesterov"] is True
    assert first.param_groups[0]["momentum"] == 0.8
    assert isinstance(second, optim.AdamW)
    assert second.param_groups[0]["weight_decay"] == 0.02
    assert second.param_groups[0]["lr"] == 0.003


def test_the_scheduler_is_stepped_batch_by_batch() -> None:
    optimizer, schedule = _optimizer(epochs=2, schedule={"name": "one_cycle", "warmup": 0.5})
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.01, 0.03, 0.05, 0.07, 0.09, 0.09, 0.07, 0.05, 0.03, 0.01])
