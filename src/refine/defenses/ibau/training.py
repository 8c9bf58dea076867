"""Implicit backdoor adversarial unlearning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from refine.defending.finetuning import accuracy, cross_entropy, labeled_images, labels_of
from refine.defending.retraining import Retraining, retrained, trainable
from refine.defending.train import Task
from refine.defenses.ibau.defense import Params
from refine.models.device import to_float32
from refine.training.batches import Batch
from refine.training.loop import Step

Loss = Callable[[Tensor], Tensor]
"""From a perturbation to a scalar, which also depends on the weights."""


def hypergradient(
    inner: Loss, outer: Loss, change: Tensor, weights: Sequence[Tensor], step: float, count: int
) -> tuple[list[Tensor], Tensor]:
    """The gradient by the weights of an outer loss at the solution of an inner one, which depends on them too.

    Args:
        inner: whose minimum the perturbation is.
        outer: of the perturbation and the weights.
        change: the perturbation.
        weights: that both depend on.
        step: of the map d - step · ∂inner/∂d, whose fixed point it is.
        count: how often the implicit gradient is improved.

    Returns:
        The gradient by each of the weights, and the outer loss.
    """
    change = change.detach().requires_grad_()
    loss = outer(change)
    slopes = torch.autograd.grad(loss, [change, *weights], allow_unused=True)
    by_change = torch.zeros_like(change) if slopes[0] is None else slopes[0]
    direct = [
        torch.zeros_like(each) if slope is None else slope for each, slope in zip(weights, slopes[1:], strict=True)
    ]
    (descent,) = torch.autograd.grad(inner(change), change, create_graph=True)
    mapped = change - step * descent
    vector = torch.zeros_like(by_change)
    for _ in range(count):
        (through,) = torch.autograd.grad(mapped, change, vector, retain_graph=True)
        vector = through + by_change
    implicit = torch.autograd.grad(mapped, list(weights), vector, allow_unused=True)
    return [one if other is None else one + other for one, other in zip(direct, implicit, strict=True)], loss.detach()


class Implicit(Retraining):
    """Training against a perturbation that all images share.

    Args:
        params: of the defense.
        seed: of the order in which a round sees the batches.
        of: arguments of `Retraining`, without batch statistics.
    """

    def __init__(self, params: Params, seed: int, *of: Any) -> None:
        super().__init__(*of)
        self.params, self.seed = params, seed
        self.weights = [each for each in self.module.parameters() if each.requires_grad]
        side = self.images.side
        self.change = torch.zeros(1, 3, side, side, device=self.compute.device)

    def begin_epoch(self, epoch: int) -> None:
        """Seeks the perturbation of the round."""
        super().begin_epoch(epoch)
        self.module.eval()
        self.generator.manual_seed(self.seed + epoch)
        self.change = torch.zeros_like(self.change)
        for number, batch in enumerate(self.batches.epoch(self.seed + epoch)):
            shown = self.classifier.normalize(self.augmented(batch))
            if not number:
                self.first = shown, labels_of(batch)
            with torch.no_grad():
                answers = self._logits(shown).argmax(dim=1)
            change = self.change.requires_grad_()
            (slope,) = torch.autograd.grad(self.inner(shown, answers)(change), change)
            self.change = (change - self.params.inner_lr * slope).detach()

    def inner(self, shown: Tensor, classes: Tensor) -> Loss:
        """The loss that the perturbation minimizes, for normalized images and their classes."""

        def loss(change: Tensor) -> Tensor:
            fooled = -functional.cross_entropy(self._logits(shown + change), classes)
            return fooled + self.params.penalty * change.square().sum()

        return loss

    def step(self, batch: Batch) -> Step:
        """A loss whose gradient is the implicit one; the figures are those of the outer loss."""
        self.module.eval()
        shown, labels = self.classifier.normalize(self.augmented(batch)), labels_of(batch)
        count = max(1, int(self.params.share * len(shown)))
        chosen = torch.randperm(len(shown), generator=self.generator, device=self.compute.device)[:count]
        told: dict[str, Tensor] = {}

        def outer(change: Tensor) -> Tensor:
            added = torch.zeros_like(shown).index_add(0, chosen, change.expand(count, -1, -1, -1))
            logits = self._logits(shown + added)
            told["accuracy"] = accuracy(logits, labels).detach()
            return functional.cross_entropy(logits, labels)

        params = self.params
        slopes, loss = hypergradient(
            self.inner(*self.first), outer, self.change, self.weights, params.inner_step, params.implicit_steps
        )
        products = [(weight * slope).sum() for weight, slope in zip(self.weights, slopes, strict=True)]
        length = self.change.norm()
        return Step(torch.stack(products).sum() * batch.loss_weight, {"loss": loss, **told, "perturbation": length})

    def _logits(self, normalized: Tensor) -> Tensor:
        with self.compute.autocast(self._precision), sdpa_kernel(SDPBackend.MATH):  # others have no second derivative
            logits: Tensor = self.module(normalized)
        return to_float32(logits)


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    of = trainable(task), labeled_images(task), params.recipe, cross_entropy, task.compute, False
    return retrained(task, Implicit(params, task.seed, *of))
