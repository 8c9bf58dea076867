"""The project's own trainings over any batches, through its real loop, with a clock around the steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from benchmarks.common import PROJECT
from benchmarks.images import CLASSES, SIDE
from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.backdoor.params import TrainBackdoorParams
from refine.backdoor.train import BackdoorTask
from refine.core.params import ParamsFile
from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.defense import Refine
from refine.defenses.refine.model.label_map import derangement
from refine.defenses.refine.model.transform import built
from refine.defenses.refine.training.params import TrainRefineParams
from refine.defenses.refine.training.train import RefineTask
from refine.models import classifier as classifiers
from refine.models.architecture import Architecture
from refine.models.classifier import Classifier, ClassifierCard, Normalization
from refine.models.device import Compute
from refine.training.batches import Batch
from refine.training.loop import Epochs, Run

Task = BackdoorTask | RefineTask


def default_params(path: Path = PROJECT / "params.yaml") -> tuple[TrainBackdoorParams, TrainRefineParams]:
    """Both trainings as `params.yaml` has them: narrow networks."""
    file = ParamsFile(path)
    return file.section("train_backdoor", TrainBackdoorParams), file.section("train_refine", TrainRefineParams)


def paper_params() -> tuple[TrainBackdoorParams, TrainRefineParams]:
    """Both trainings as published."""
    backdoor = {"seed": 1, "network": {"name": "resnet18", "width": 64}, "recipe": "paper"}
    return TrainBackdoorParams.model_validate(backdoor), TrainRefineParams.model_validate(
        {"seed": 1, "transform": {"name": "unet"}, "recipe": "paper"}
    )


def card(network: Architecture) -> ClassifierCard:
    """Of `classifier`, without sums."""
    return ClassifierCard(
        weights_sha256="0" * 64,
        architecture=network,
        classes=[str(label) for label in range(CLASSES)],
        normalization=Normalization(mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.2010]),
        input_side=SIDE,
        training={},
    )


def classifier(network: Architecture, compute: Compute) -> Classifier:
    """A random classifier on the device, NCHW, its batch statistics those of noise."""
    torch.manual_seed(1)
    made = classifiers.like(card(network))
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.momentum = 1.0
    with torch.no_grad():
        made.train()(torch.rand(16, 3, SIDE, SIDE))
    for module in norms:
        module.momentum = 0.1
    return made.to(compute.device)


def defense(params: TrainRefineParams, network: Architecture, compute: Compute) -> Refine:
    """A random transform on the device, NCHW, for a random frozen classifier."""
    attacked = classifier(network, compute)
    permutation = derangement(CLASSES, params.permutation_seed)
    transform = built(params.transform, card(network))
    return Refine(attacked, transform, permutation, params.input_space).to(compute.device).train()


def backdoor_task(params: TrainBackdoorParams, batches: Epochs, compute: Compute, precision: str) -> BackdoorTask:
    """The task of train-backdoor, as its stage builds it."""
    made = classifier(params.network, compute).to(memory_format=torch.channels_last)
    return BackdoorTask(made, batches, params.recipe, AttackerAugmentation(), compute, precision)


def refine_task(
    params: TrainRefineParams, network: Architecture, batches: Epochs, compute: Compute, precision: str
) -> RefineTask:
    """The task of train-refine, as its stage builds it."""
    made = defense(params, network, compute).to(memory_format=torch.channels_last)
    answers = PseudoLabels(made.classifier, params.recipe, params.pseudo_labels == "once", compute, precision)
    return RefineTask(made, batches, answers, params, compute, precision, keep=[])


class Repeated:
    """An epoch of any number of batches, taken from one short epoch after the other."""

    def __init__(self, epochs: Epochs, steps: int) -> None:
        self._epochs = epochs
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def epoch(self, seed: int) -> Iterator[Batch]:
        left = self._steps
        while left:
            for batch in islice(self._epochs.epoch(seed), left):
                left -= 1
                yield batch
            seed += 1


class Clocked:
    """Epochs whose time is taken, from the request for a batch to the end of the last one's step.

    Args:
        epochs: passed on.
        compute: its device has to be done when the clock starts and when it stops.
        skip: batches before the clock starts.

    Attributes:
        seconds: of the last epoch.
        waited: seconds of them until batches came.
        first: seconds of these until the first batch came.
    """

    def __init__(self, epochs: Epochs, compute: Compute, skip: int = 0) -> None:
        self._epochs = epochs
        self._compute = compute
        self._skip = skip
        self.seconds = self.waited = self.first = 0.0

    def __len__(self) -> int:
        return len(self._epochs)

    def epoch(self, seed: int) -> Iterator[Batch]:
        self.waited = self.first = 0.0
        batches = self._epochs.epoch(seed)
        for step in range(len(self)):
            if step in (0, self._skip):
                started = settled(self._compute)
            asked = perf_counter()
            batch = next(batches)
            if step >= self._skip:
                self.waited += perf_counter() - asked
                self.first = self.first or self.waited
            yield batch
        for _ in batches:  # lets an exact stream see that it ended
            raise AssertionError("more batches than expected")
        self.seconds = settled(self._compute) - started


def settled(compute: Compute) -> float:
    """The clock, once the device has done all its work."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
    return perf_counter()


def train_epoch(task: Task, batches: Epochs, compute: Compute, skip: int = 0) -> Clocked:
    """One epoch through the real loop, with a fresh optimizer.

    Args:
        task: its batches are replaced.
        batches: to train on.
        compute: of the task.
        skip: batches before the clock starts.
    """
    task.batches = clocked = Clocked(batches, compute, skip)
    recipe = task.recipe if isinstance(task, BackdoorTask) else task.params.recipe
    Run(task, recipe.model_copy(update={"epochs": 1}), "benchmark", seed=1, compute=compute, checkpoints=None).train()
    return clocked
