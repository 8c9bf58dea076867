"""Masks on channels, trained against noise, and the channels that they remove."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from refine.core.files import write_csv
from refine.defending import validation
from refine.defending.channels import Pair, pairs, remove
from refine.defending.finetuning import accuracy, labeled_images, labels_of
from refine.defending.retraining import Retraining, trainable
from refine.defending.train import Task
from refine.defenses.anp.defense import NAME, Params
from refine.models.card import WEIGHTS
from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.shards.reading.tensors import save_tensors
from refine.training.batches import Batch
from refine.training.loop import Run, Step, write_history
from refine.training.training_set import TrainingSet

log = logging.getLogger(__name__)

MASKS, TRIED = "masks.csv", "thresholds.csv"
"""The mask of each channel and whether it was removed, and what each threshold costs; beside the weights."""
THRESHOLDS = [number / 20 for number in range(19)]


class Masks(nn.Module):
    """A mask for each channel of some batch normalizations, whose outputs it changes from then on.

    With mask m and noise a, b, a normalized value of scale g and shift s becomes (m + a) g x + (1 + b) s.

    Args:
        of: the batch normalizations; one without scale and shift counts as g = 1 and s = 0.
    """

    def __init__(self, of: list[Pair]) -> None:
        super().__init__()
        layers = [pair.normalization for pair in of]
        self.masks = nn.ParameterList(
            nn.Parameter(torch.ones(layer.num_features, device=pair.convolution.weight.device))
            for layer, pair in zip(layers, of, strict=True)
        )
        self.noise: list[Tensor] | None = None
        for place, layer in enumerate(layers):
            layer.register_forward_hook(self._hook(place))

    def draw(self, largest: float, generator: torch.Generator) -> list[Tensor]:
        """Draws noise, uniformly from ±largest, which then counts: float32 [2, C] for each layer, with gradient."""
        self.noise = [
            ((2 * torch.rand((2, len(mask)), generator=generator, device=mask.device) - 1) * largest).requires_grad_()
            for mask in self.masks
        ]
        return self.noise

    def _hook(self, place: int) -> Any:
        def change(layer: nn.Module, _: Any, out: Tensor) -> Tensor:
            mask = self.masks[place]
            on_scale, on_shift = self.noise[place] if self.noise is not None else torch.zeros(2, 1, device=mask.device)
            factor = mask + on_scale
            changed = out * _channels(factor, out)
            if layer.bias is None:
                return changed
            return changed + _channels(layer.bias * (1 + on_shift - factor), out)

        return change


def _channels(values: Tensor, maps: Tensor) -> Tensor:
    return values.to(maps.dtype).view(1, -1, 1, 1)


class Masking(Retraining):
    """Trains masks; the network stays, but for its running statistics.

    Args:
        params: of the defense.
        of: arguments of `Retraining`; the classifier is a copy that is not used afterwards.
    """

    def __init__(self, params: Params, of: list[Pair], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.classifier.requires_grad_(False)
        self.params = params
        self.module = self.masks = Masks(of)

    def step(self, batch: Batch) -> Step:
        """The loss of the masks, with the noise that harms most."""
        self.classifier.train()
        pixels, labels = self.augmented(batch), labels_of(batch)
        noise = self.masks.draw(self.params.noise, self.generator)
        slopes = torch.autograd.grad(
            self._loss(pixels, labels), [each for each in noise if each.requires_grad], allow_unused=True
        )
        with torch.no_grad():
            for each, slope in zip(noise, slopes, strict=True):
                if slope is not None:
                    each.add_(self.params.noise * slope.sign())
        noisy = self._loss(pixels, labels)
        self.masks.noise = None
        logits = self._logits(pixels)
        clean = functional.cross_entropy(logits, labels)
        share = self.params.clean_weight
        loss = share * clean + (1 - share) * noisy
        figures = {"loss": loss, "clean": clean, "noisy": noisy, "accuracy": accuracy(logits, labels)}
        return Step(loss * batch.loss_weight, {name: value.detach() for name, value in figures.items()})

    def update(self, optimizer: Optimizer) -> None:
        """See `training.loop.Updates`."""
        optimizer.step()
        with torch.no_grad():
            for mask in self.masks.masks:
                mask.clamp_(0, 1)

    def _logits(self, pixels: Tensor) -> Tensor:
        with self.compute.autocast(self._precision):
            logits = self._forward(pixels)
        return to_float32(logits)

    def _loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self._logits(pixels), labels)


def without(classifier: Classifier, masks: list[Tensor], threshold: float) -> Classifier:
    """A copy of a classifier without the channels whose mask is at most the threshold."""
    made = deepcopy(classifier)
    for pair, mask in zip(pairs(made.network, NAME), masks, strict=True):
        remove(pair, mask <= threshold, shifts=False)
    return made


def chosen(
    classifier: Classifier, masks: list[Tensor], images: TrainingSet, most_loss: float, compute: Compute
) -> tuple[float | None, list[tuple[float, int, float]]]:
    """The largest threshold that costs little accuracy; None if each costs more.

    Args:
        classifier: as given, in eval mode, on the device.
        masks: of its channels.
        images: for validation, labeled.
        most_loss: of the accuracy, as a difference.
        compute: of the device.

    Returns:
        The threshold, and for each one the number of channels that it removes and the accuracy.
    """
    least = validation.accuracy(classifier, images, compute) - most_loss
    tried = []
    for threshold in THRESHOLDS:
        accuracy = validation.accuracy(without(classifier, masks, threshold), images, compute)
        tried.append((threshold, sum(int((mask <= threshold).sum()) for mask in masks), accuracy))
    good = [threshold for threshold, _, accuracy in tried if accuracy >= least]
    return (max(good) if good else None), tried


def train(task: Task) -> str:
    """See `defending.train.Task`.

    Raises:
        UserError: no channels are found, or there are too few images.
    """
    params: Params = task.settings
    images = labeled_images(task)
    some = validation.split_off(images, params.validation, task.seed, f"defense_settings.{NAME}.validation")
    masked = trainable(task)
    of = pairs(masked.network, NAME)
    masking = Masking(params, of, masked, images.subset(~some), params.recipe, None, task.compute)
    run = Run(masking, params.recipe, f"train-defense@{NAME}", task.seed, task.compute, task.checkpoints)
    write_history(task.folder / "history.csv", run.train())
    masks = [mask.detach() for mask in masking.masks.masks]
    classifier = trainable(task).eval()
    threshold, tried = chosen(classifier, masks, images.subset(some), params.most_loss, task.compute)
    write_csv(task.folder / TRIED, ("threshold", "channels", "validation_accuracy"), tried)
    rows = [
        (pair.name, channel, value, str(threshold is not None and value <= threshold).lower())
        for pair, mask in zip(of, masks, strict=True)
        for channel, value in enumerate(mask.tolist())
    ]
    write_csv(task.folder / MASKS, ("layer", "channel", "mask", "removed"), rows)
    if threshold is None or not any((mask <= threshold).any() for mask in masks):
        log.warning("no channel is removed: %s", "each costs too much" if threshold is None else "no mask fell so far")
    made = classifier if threshold is None else without(classifier, masks, threshold)
    return save_tensors(task.folder / WEIGHTS, made.network.state_dict())
