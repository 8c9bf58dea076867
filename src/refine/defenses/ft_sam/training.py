"""Sharpness-aware fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from refine.defending.finetuning import accuracy, labeled_images, labels_of
from refine.defending.retraining import Loss, Retraining, retrained, trainable
from refine.defending.train import Task
from refine.defenses.ft_sam.defense import Params
from refine.training.batches import Batch
from refine.training.loop import Step

_LEAST = 1e-12
"""Added to the length of a gradient, which may be zero."""


class SharpnessAware(Retraining):
    """Retraining whose gradients come from the worst weights nearby.

    Args:
        rho: how far away these are.
        adaptive: scale that by the size of each weight.
        of: arguments of `Retraining`.
    """

    def __init__(self, rho: float, adaptive: bool, *of: Any) -> None:
        super().__init__(*of)
        self.rho, self.adaptive = rho, adaptive
        self._before: list[tuple[nn.Parameter, Tensor]] = []

    def step(self, batch: Batch) -> Step:
        """The loss at the worst weights, where the network then is until `update`; figures are those at its own."""
        pixels = self.augmented(batch)
        self.module.zero_grad(set_to_none=True)
        own = self.step_on(pixels, batch)
        own.loss.backward()  # type: ignore[no-untyped-call]
        self.perturb()
        with still_statistics(self.module):
            worst = self.step_on(pixels, batch)
        return Step(worst.loss, {**own.terms, "worst_loss": worst.terms["loss"]})

    @torch.no_grad()
    def perturb(self) -> None:
        """Goes to the worst weights along the gradients that are there."""
        moved = [(parameter, parameter.grad) for parameter in self.module.parameters() if parameter.grad is not None]
        scales = [parameter.abs() if self.adaptive else torch.ones_like(parameter) for parameter, _ in moved]
        lengths = [(scale * grad).norm() for scale, (_, grad) in zip(scales, moved, strict=True)]
        factor = self.rho / (torch.stack(lengths).norm() + _LEAST)
        self._before = [(parameter, parameter.detach().clone()) for parameter, _ in moved]
        for scale, (parameter, grad) in zip(scales, moved, strict=True):
            parameter.add_(scale.square() * grad * factor)

    @torch.no_grad()
    def restore(self) -> None:
        """Goes back, to the very same weights."""
        for parameter, before in self._before:
            parameter.copy_(before)
        self._before = []

    def update(self, optimizer: Optimizer) -> None:
        """See `training.loop.Updates`."""
        self.restore()
        optimizer.step()


@contextmanager
def still_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalization moves no running statistics; in training mode, it uses those of the batch all the same."""
    moving = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for layer in moving:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in moving:
            layer.track_running_stats = True


def loss_of(smoothing: float) -> Loss:
    """The divergence from smoothed labels, which is zero where the probabilities are these."""

    def loss(logits: Tensor, _: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels, classes = labels_of(batch), logits.shape[1]
        wanted = torch.full_like(logits, smoothing / (classes - 1)).scatter_(1, labels[:, None], 1 - smoothing)
        divergence = functional.kl_div(logits.log_softmax(dim=1), wanted, reduction="batchmean")
        return {"loss": divergence, "accuracy": accuracy(logits, labels)}

    return loss


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    images, loss = labeled_images(task), loss_of(params.label_smoothing)
    of = trainable(task), images, params.recipe, loss, task.compute, params.batch_statistics
    return retrained(task, SharpnessAware(params.rho, params.adaptive, *of))
