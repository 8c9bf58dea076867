"""Shared adversarial unlearning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from refine.defending.finetuning import accuracy, cross_entropy, labeled_images, labels_of
from refine.defending.retraining import Retraining, retrained, trainable
from refine.defending.train import Task
from refine.defenses.sau.defense import Params
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.models.device import to_float32
from refine.training.batches import Batch
from refine.training.loop import Step

Logits = Callable[[Tensor], Tensor]
_LEAST = 1e-6


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Jensen-Shannon divergence of probabilities, float32 [B], in nats; from logits float32 [B, K] each."""
    logs = [logits.log_softmax(dim=1) for logits in (one, other)]
    mean = torch.stack([each.exp() for each in logs]).mean(dim=0).clamp(min=1e-12).log()
    parts = [functional.kl_div(mean, each, reduction="none", log_target=True).sum(dim=1) for each in logs]
    return torch.stack(parts).mean(dim=0)


def adversarial(models: tuple[Logits, Logits], pixels: Tensor, labels: Tensor, params: Params) -> Tensor:
    """A perturbation of each image that both models take for the same wrong class, if one is found.

    Args:
        models: the classifier as it is, and as it was given: pixels to logits float32.
        pixels: float [B, 3, H, W] in [0, 1].
        labels: int64 [B].
        params: of the defense.

    Returns:
        float [B, 3, H, W], each value at most `bound` away from 0.
    """
    with torch.no_grad():
        before = [model(pixels).argmax(dim=1) for model in models]
    change = torch.full_like(pixels, params.bound)
    for _ in range(params.steps):
        change.requires_grad_()
        logits = [model(pixels + change) for model in models]
        answers = [each.detach().argmax(dim=1) for each in logits]
        fooled = [answer != clean for answer, clean in zip(answers, before, strict=True)]
        shared = fooled[0] & fooled[1] & (answers[0] == answers[1])
        if shared.all():
            break
        entropies = [
            (functional.cross_entropy(each, labels, reduction="none") * ~done).sum()
            for each, done in zip(logits, fooled, strict=True)
        ]
        apart = (divergence(*logits) * ~shared).sum()
        wanted = -params.adversarial_weight * torch.stack(entropies).mean() + params.shared_weight * apart
        (slope,) = torch.autograd.grad(wanted / len(pixels), change)
        change = (change.detach() - params.step_size * slope.sign()).clamp(-params.bound, params.bound)
    return change.detach()


def shared_mistakes(logits: Tensor, given: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """The loss of what the given classifier mistakes perturbed images for, a scalar; 0 without mistakes.

    Args:
        logits: of perturbed images by the classifier in training, float32 [B, K].
        given: answers to the same images of the classifier as it was given, int64 [B].
        clean: its answers without perturbation, int64 [B].
        labels: int64 [B].
    """
    mistaken = (given != labels) & (given != clean)
    chances = logits.softmax(dim=1).gather(1, given[:, None])[:, 0]
    return -((1 - chances).clamp(min=_LEAST).log() * mistaken).sum() / len(labels)


class Unlearning(Retraining):
    """Fine-tuning that unlearns mistakes which it shares with the given classifier.

    Args:
        given: that classifier, frozen, on the device.
        params: of the defense.
        of: arguments of `Retraining`.
    """

    def __init__(self, given: Classifier, params: Params, *of: Any) -> None:
        super().__init__(*of)
        self.given, self.params = given, params

    def step(self, batch: Batch) -> Step:
        """Seeks perturbations, then takes the loss of the clean images and of the shared mistakes."""
        self.module.eval()  # dropout too: both classifiers have to see the same
        pixels, labels = self.augmented(batch), labels_of(batch)
        change = adversarial((self._own, self._first), pixels, labels, self.params)
        with torch.no_grad():
            wrong, clean = (self._first(shown).argmax(dim=1) for shown in (pixels + change, pixels))
        logits, perturbed = self._own(torch.cat([pixels, pixels + change])).chunk(2)
        mistakes = shared_mistakes(perturbed, wrong, clean, labels)
        plain = functional.cross_entropy(logits, labels)
        loss = plain + self.params.unlearn_weight * mistakes
        figures = {"loss": loss, "cross_entropy": plain, "shared": mistakes, "accuracy": accuracy(logits, labels)}
        return Step(loss * batch.loss_weight, {name: value.detach() for name, value in figures.items()})

    def _own(self, pixels: Tensor) -> Tensor:
        with self.compute.autocast(self._precision):
            logits = self._forward(pixels)
        return to_float32(logits)

    def _first(self, pixels: Tensor) -> Tensor:
        with self.compute.autocast(self._precision):
            logits: Tensor = self.given(pixels)
        return to_float32(logits)


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    given = classifiers.freeze(trainable(task))
    of = trainable(task), labeled_images(task), params.recipe, cross_entropy, task.compute, False
    return retrained(task, Unlearning(given, params, *of))
