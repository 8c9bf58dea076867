"""Training the backdoored classifier: plain supervised training on what the attacker left (spec 1.7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.data import training_time
from refine.data.augment import augment
from refine.data.batches import Batches
from refine.data.distort import distort
from refine.data.reader import Split
from refine.data.tensors import load_tensors
from refine.data.training_time import TrainingTime
from refine.models import classifier as classifiers
from refine.models.card import fill
from refine.models.classifier import Architecture, Classifier, ClassifierCard, Normalisation
from refine.models.device import Compute
from refine.params.train_backdoor import BackdoorRecipe, TrainBackdoorParams
from refine.system.files import new_folder
from refine.training.loop import Batch, Step, seeded, train, write_history


@dataclass
class BackdoorTask:
    """Cross-entropy on the labels that the attacker gave; see `training.loop.Task`.

    Attributes:
        module: the network inside the classifier, which is what is trained.
        batches: the poisoned training set.
        labels: int64 [N], given labels, on the device.
        poisoned: bool [N], on the device.
    """

    classifier: Classifier
    batches: Batches
    labels: Tensor
    poisoned: Tensor
    recipe: BackdoorRecipe
    attack: TrainingTime
    generator: Generator
    compute: Compute
    precision: str

    def __post_init__(self) -> None:
        self.module = self.classifier.network

    def step(self, batch: Batch) -> Step:
        pixels, rows = batch
        labels, poisoned = self.labels[rows], self.poisoned[rows]
        with torch.no_grad():
            pixels = augment(self._distorted(pixels, poisoned), self.recipe.augment, self.generator)
        with self.compute.autocast(self.precision):
            logits = self.classifier(pixels)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        right = (logits.argmax(dim=1) == labels).float().mean()
        return Step(loss, {"loss": loss, "train_accuracy": right})

    def _distorted(self, pixels: Tensor, poisoned: Tensor) -> Tensor:
        for settings, chosen in ((self.attack.poisoned, poisoned), (self.attack.benign, ~poisoned)):
            if settings is not None:
                changed = distort(pixels, settings, self.generator)
                pixels = torch.where(chosen.view(-1, 1, 1, 1), changed, pixels)
        return pixels

    def after_epoch(self, epoch: int) -> None:
        """Nothing to keep: the last epoch counts (spec 1.9, no selection)."""


def train_backdoor(
    params: TrainBackdoorParams, poisoned: Split, attack_folder: Path, compute: Compute, folder: Path
) -> str:
    """Trains the classifier and writes its folder.

    Args:
        params: of the stage.
        poisoned: the training set that the attacker left.
        attack_folder: what the attack does during training.
        compute: device and threads.
        folder: takes weights, card and history.

    Returns:
        The resolved precision.
    """
    recipe = params.recipe
    attack = training_time.read(attack_folder)
    order, draws = seeded(params.seed, compute.device)
    architecture = Architecture(name=params.network.name, width=params.network.width)
    manifest = poisoned.manifest
    normalisation = Normalisation(mean=manifest.mean, std=manifest.std)
    named_in = "train_backdoor.network.name"
    classifier = classifiers.build(architecture, len(manifest.classes), normalisation, named_in)
    if attack.initial_weights_sha256 is not None:
        path = attack_folder / training_time.WEIGHTS
        fill(classifier.network, load_tensors(path, attack.initial_weights_sha256, "run `dvc repro`"), path)
    classifier.to(compute.device).to(memory_format=torch.channels_last)
    precision = compute.precision(recipe.precision)
    task = BackdoorTask(
        classifier=classifier,
        batches=Batches(poisoned.images, recipe.batch_size, recipe.drop_last, compute.device, order),
        labels=poisoned.labels.to(compute.device),
        poisoned=poisoned.flags("poisoned").to(compute.device),
        recipe=recipe,
        attack=attack,
        generator=draws,
        compute=compute,
        precision=precision,
    )
    history = train(task, recipe, "train-backdoor")
    card = ClassifierCard(
        weights_sha256="0" * 64,
        architecture=architecture,
        classes=manifest.classes,
        normalisation=normalisation,
        input_side=manifest.side,
        training={**params.model_dump(), "precision": precision},
    )
    with new_folder(folder) as part:
        classifiers.save(part, classifier, card)
        write_history(part / "history.csv", history)
    return precision
