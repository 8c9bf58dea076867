"""Training the backdoored classifier: standard supervised training on the poisoned data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.backdoor import attacker_augmentation, twins
from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.backdoor.distort import distort
from refine.backdoor.params import AdaptiveParams, BackdoorRecipe, TrainBackdoorParams
from refine.backdoor.twins import Twins
from refine.core.files import new_folder
from refine.models import classifier as classifiers
from refine.models.card import load_exact
from refine.models.classifier import Classifier, ClassifierCard, Normalization
from refine.models.device import Compute, to_float32
from refine.models.layout import channels_last
from refine.shards.format.manifest import Manifest
from refine.shards.reading.tensors import load_tensors
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.compilation import compiled
from refine.training.lone_image import refuse_lone_image
from refine.training.loop import Epochs, Run, Step, Weights, batches_of, write_history
from refine.training.processes import Processes
from refine.training.training_set import TrainingSet

FIELDS = ("label", "poisoned", "key")
"""What training needs to know of each sample; the key is only needed for twins."""

Beside = Callable[[Classifier, int, AdaptiveParams], nn.Module]
"""Gives, for a classifier of so many classes, a module that has it as a part. That maps pixels float [N, 3, H, W] and
bool [N], which of them are poisoned, to two logits float [N, K]: of the images, and of them through a defense."""


@dataclass
class BackdoorTask:
    """Cross-entropy with the labels of the poisoned data set; see `training.loop.Task`.

    Attributes:
        classifier: its network is trained.
        batches: of the poisoned training set, with `FIELDS`.
        expected: the classifier beside the defense that its attacker expects, see `Beside`.
        weight: of the loss through that defense.
    """

    classifier: Classifier
    batches: Epochs
    recipe: BackdoorRecipe
    attack: AttackerAugmentation
    compute: Compute
    precision: str
    twins: Twins | None = None
    expected: nn.Module | None = None
    weight: float = 1.0
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module: nn.Module = self.expected or self.classifier.network
        self.generator = Generator(self.compute.device)
        trained = self.expected or self.classifier
        self._forward = compiled(Processes(self.compute).data_parallel(trained), self.recipe)

    def step(self, batch: Batch) -> Step:
        labels = batch.fields[0]
        with torch.no_grad():
            pixels = self._augmented(batch)
        with self.compute.autocast(self.precision):
            if self.expected:
                logits, through = self._forward(pixels, batch.fields[1].bool())
            else:
                logits = self._forward(pixels)
        loss = self._cross_entropy(logits, labels)
        right = (logits.argmax(dim=1) == labels).float().mean()
        figures = {"loss": loss, "train_accuracy": right}
        if self.expected:
            figures["through_transform"] = self._cross_entropy(through, labels)
            loss = loss + self.weight * figures["through_transform"]
        return Step(loss * batch.loss_weight, figures)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(to_float32(logits), labels, label_smoothing=self.recipe.label_smoothing)

    def _augmented(self, batch: Batch) -> Tensor:
        pixels, settings, unflipped = batch.pixels, self.recipe.augment, None
        if self.twins is not None and settings.flip:
            keys = batch.fields[2]
            pixels, unflipped = self.twins.instead_of_flips(pixels, keys, settings.flip, self.generator)
        return augment(self._distorted(pixels, batch.fields[1].bool()), settings, self.generator, unflipped)

    def _distorted(self, pixels: Tensor, poisoned: Tensor) -> Tensor:
        for settings, chosen in ((self.attack.poisoned, poisoned), (self.attack.benign, ~poisoned)):
            if settings is not None:
                changed = distort(pixels, settings, self.generator)
                pixels = torch.where(chosen.view(-1, 1, 1, 1), changed, pixels)
        return pixels

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Nothing is kept: the classifier is that of the last epoch, without selection."""


def train_backdoor(
    params: TrainBackdoorParams,
    poisoned: tuple[TrainingSet, Manifest],
    attack_folder: Path,
    compute: Compute,
    folder: Path,
    checkpoints: Checkpoints | None = None,
    beside: Beside | None = None,
) -> None:
    """Trains the classifier and writes its folder.

    Args:
        params: of the stage.
        poisoned: the poisoned training set with `FIELDS`, and its manifest.
        attack_folder: with `AttackerAugmentation` and its files.
        compute: device and threads.
        folder: to write weights, card and history into.
        checkpoints: of this run; None trains without any.
        beside: puts the defense that `params.adaptive` expects beside the classifier; None where it is null.

    Raises:
        UserError: the images cannot be cut into batches, or the loss or the weights are no longer finite.
    """
    recipe = params.recipe
    images, manifest = poisoned
    torch.manual_seed(params.seed)
    normalization = Normalization(mean=manifest.mean, std=manifest.std)
    classifier = classifiers.build(params.network, len(manifest.classes), normalization, manifest.side)
    channels_last(classifier.to(compute.device))
    batches = batches_of(images, recipe, compute)
    refuse_lone_image(classifier, images, recipe, compute)
    classifiers.init_from_data(classifier, lambda: next(iter(batches.epoch(params.seed))).pixels)
    attack = attacker_augmentation.read(attack_folder)
    if attack.initial_weights_sha256 is not None:
        path = attack_folder / attacker_augmentation.WEIGHTS
        load_exact(classifier.network, load_tensors(path, attack.initial_weights_sha256, "run `dvc repro`"), path)
    twin_images = None
    if attack.twins_sha256 is not None:
        twin_images = twins.read(attack_folder, attack.twins_sha256, manifest.side, compute.device)
    expected = None
    if params.adaptive:
        if beside is None:
            raise TypeError("params.adaptive needs `beside`")
        expected = beside(classifier, len(manifest.classes), params.adaptive)
        channels_last(expected.to(compute.device))
        refuse_lone_image(expected, images, recipe, compute)
    precision = compute.precision(recipe.precision)
    task = BackdoorTask(
        classifier=classifier,
        batches=batches,
        recipe=recipe,
        attack=attack,
        compute=compute,
        precision=precision,
        twins=twin_images,
        expected=expected,
        weight=params.adaptive.weight if params.adaptive else 1.0,
    )
    history = Run(task, recipe, "train-backdoor", params.seed, compute, checkpoints).train()
    card = ClassifierCard(
        weights_sha256="0" * 64,
        architecture=params.network,
        classes=manifest.classes,
        normalization=normalization,
        input_side=manifest.side,
        training={**params.model_dump(exclude={"imported"}), "precision": precision},
    )
    if compute.rank == 0:
        with new_folder(folder) as part:
            classifiers.save(part, classifier, card)
            write_history(part / "history.csv", history)
