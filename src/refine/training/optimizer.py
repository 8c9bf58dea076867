"""Optimizer and learning rate of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from refine.training.recipe import Optimizer, Recipe, Schedule


def build(parameters: Iterable[nn.Parameter], recipe: Recipe, steps_per_epoch: int) -> tuple[optim.Optimizer, LambdaLR]:
    """The optimizer, and the scheduler to be stepped after each batch."""
    optimizer = _optimizer(parameters, recipe.optimizer)
    return optimizer, LambdaLR(optimizer, factor_of(recipe.schedule, recipe.epochs, steps_per_epoch))


def _optimizer(parameters: Iterable[nn.Parameter], settings: Optimizer) -> optim.Optimizer:
    if settings.name == "adamw":
        return optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    return optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def factor_of(schedule: Schedule, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the learning rate of each step, counted from 0.

    The published schedule steps at epochs 100 and 130 of 150; as shares of the run it also fits short ones
    (the released script subtracts from the end and gets negative milestones there).
    """
    if schedule.name == "step":
        milestones = [round(share * epochs) * steps_per_epoch for share in schedule.milestones]
        return lambda step: schedule.factor ** sum(step >= milestone for milestone in milestones)
    if schedule.name == "cosine":
        return _cosine(schedule, epochs, steps_per_epoch)
    if schedule.name == "oscillating":
        return lambda step: _half_cosine(step / schedule.period)
    total = epochs * steps_per_epoch
    peak = schedule.warmup * total

    def one_cycle(step: int) -> float:
        place = step + 0.5
        return place / peak if place < peak else (total - place) / (total - peak) if place < total else 0.0

    return one_cycle


def _cosine(schedule: Schedule, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """See `Schedule`."""
    rising = round(schedule.rise * epochs)

    def fallen(epoch: int) -> float:
        return schedule.floor + (1 - schedule.floor) * _half_cosine(epoch / epochs)

    def factor(step: int) -> float:
        epoch = step // steps_per_epoch
        if epoch >= rising:
            return fallen(epoch)
        place = step / (rising * steps_per_epoch)
        return schedule.start + (fallen(rising) - schedule.start) * place

    return factor


def _half_cosine(place: float) -> float:
    """From 1 at 0 to 0 at 1, and back to 1 at 2."""
    return (1 + math.cos(math.pi * place)) / 2
