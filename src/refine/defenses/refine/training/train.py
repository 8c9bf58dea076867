"""Training the REFINE transform: no label is used, and nothing but the transform changes (Chen et al., ICLR 2025)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.defending.pseudo_labels import PseudoLabels
from refine.defending.retraining import own_seed
from refine.defending.share import chosen
from refine.defenses.refine import defense as refine
from refine.defenses.refine.card import RefineCard, Snapshot
from refine.defenses.refine.defense import Refine
from refine.defenses.refine.model.label_map import derangement, remap
from refine.defenses.refine.model.transform import Transform, built
from refine.defenses.refine.training import substitute
from refine.defenses.refine.training.encoder import train_encoder
from refine.defenses.refine.training.loss import supcon, utility
from refine.defenses.refine.training.params import TrainRefineParams
from refine.models import classifier as classifiers
from refine.models.device import Compute, to_float32
from refine.models.layout import channels_last
from refine.shards.reading.tensors import save_tensors
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.compilation import compiled
from refine.training.lone_image import refuse_lone_image
from refine.training.loop import Epochs, Row, Run, Step, Weights, batches_of, write_history
from refine.training.processes import Processes
from refine.training.training_set import TrainingSet


class _Forward(nn.Module):
    """The part of a defense that gradients flow through: pixels to transformed images and raw logits."""

    def __init__(self, defense: Refine) -> None:
        super().__init__()
        self.defense = defense

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = self.defense.transformed(pixels)
        return images, self.defense.logits(images)


@dataclass
class RefineTask:
    """See `training.loop.Task`.

    Attributes:
        defense: whose transform is trained.
        batches: of what `answers` was given to.
        answers: of the defense's classifier.
        keep: epochs after which a snapshot is kept.
    """

    defense: Refine
    batches: Epochs
    answers: PseudoLabels
    params: TrainRefineParams
    compute: Compute
    precision: str
    keep: list[int]
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = self.defense.transform
        self.generator = Generator(self.compute.device)
        self._processes = Processes(self.compute)
        defense = self.defense
        fast = Refine(self.answers.classifier, defense.transform, defense.permutation, defense.input_space)
        self._forward = compiled(self._processes.data_parallel(_Forward(fast)), self.params.recipe)

    def step(self, batch: Batch) -> Step:
        defense, loss = self.defense, self.params.loss
        with torch.no_grad():
            pixels = augment(batch.pixels, self.params.recipe.augment, self.generator)
        pseudo_labels = self.answers.of_batch(batch, pixels)
        with self.compute.autocast(self.precision):
            images, raw = self._forward(pixels)
        remapped = remap(to_float32(raw), defense.permutation)
        terms = {"utility": utility(remapped, pseudo_labels, loss.utility)}
        total = terms["utility"] * batch.loss_weight
        if loss.supcon_weight:
            everybody = self._processes.gathered(images.flatten(1)), self._processes.gathered(pseudo_labels)
            terms["supcon"] = supcon(*everybody, loss.supcon_temperature)
            total = total + loss.supcon_weight * terms["supcon"] * self._processes.world
        with torch.no_grad():
            unweighted = terms["utility"] + loss.supcon_weight * terms.get("supcon", torch.zeros((), device=raw.device))
            terms["agreement"] = (remapped.argmax(dim=1) == pseudo_labels).float().mean()
            terms["clamped_low"] = (images <= 0).float().mean()
            terms["clamped_high"] = (images >= 1).float().mean()
        return Step(total, {"loss": unweighted, **terms})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        if epoch in self.keep:
            self.kept[f"epoch-{epoch:04d}"] = {name: tensor.cpu().clone() for name, tensor in weights.items()}


def snapshot_epochs(epochs: int, snapshots: int) -> list[int]:
    """Epochs after which a snapshot is kept: evenly spaced, the last one included, no more than there are."""
    return sorted({-(-epochs * number // snapshots) for number in range(1, snapshots + 1)})


def unlabeled(images: TrainingSet, fraction: float, generator: Generator) -> TrainingSet:
    """The defender's share of the training images, chosen uniformly.

    Raises:
        UserError: the share holds no image.
    """
    if fraction == 1:
        return images
    return images.subset(chosen(sum(images.sizes), fraction, generator, "train_refine.unlabeled_fraction"))


def _refuse(images: TrainingSet, params: TrainRefineParams, transform: Transform, compute: Compute) -> None:
    """Before any work: images that cannot be cut into batches or shuffled, and batches that are too small."""
    if params.substitute:
        batches_of(images, params.substitute.recipe, compute)
    if params.encoder:
        batches_of(images, params.encoder, compute)
        refuse_lone_image(transform, images, params.encoder, compute)
        if params.encoder.frozen:
            transform = deepcopy(transform)
            transform.freeze_encoder()
    batches_of(images, params.recipe, compute)
    refuse_lone_image(transform, images, params.recipe, compute)


def _first(images: TrainingSet, params: TrainRefineParams, compute: Compute) -> Tensor:
    """A batch of images, for encoders that begin with something computed from them; float [B, 3, H, W] on the CPU."""
    return next(batches_of(images, params.recipe, compute).epoch(params.seed)).pixels.cpu()


def resolved(params: TrainRefineParams, compute: Compute) -> dict[str, Any]:
    """All parameters, with the precisions of the trainings before its own as they are on this machine."""
    values = params.model_dump()
    if params.encoder:
        values["encoder"]["precision"] = compute.precision(params.encoder.precision)
    if params.substitute:
        values["substitute"]["recipe"]["precision"] = compute.precision(params.substitute.recipe.precision)
    return values


def train_refine(
    params: TrainRefineParams,
    images: TrainingSet,
    classifier_folder: Path,
    compute: Compute,
    folder: Path,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Trains the transform for a classifier and writes the defense's folder.

    Args:
        params: of the stage.
        images: benign and unlabeled.
        classifier_folder: of anybody's classifier.
        compute: device and threads.
        folder: takes weights, card, snapshots and the history, that of the encoder, empty if it was not trained, its
            head, if it stayed as it was then, and the history of a substitute.
        checkpoints: of this run.

    Raises:
        UserError: the classifier cannot be loaded or takes images of another size, or a batch is too small.
    """
    recipe = params.recipe
    classifier, classifier_card = classifiers.load(classifier_folder)
    if classifier_card.input_side != images.side:
        raise UserError(
            f"{classifier_folder} takes images of {classifier_card.input_side} pixels, the data set has "
            f"{images.side}; train the classifier on this data set"
        )
    torch.manual_seed(params.seed)
    classes = len(classifier_card.classes)
    permutation = derangement(classes, params.permutation_seed) if params.remap else torch.arange(classes)
    transform = built(params.transform, classifier_card)
    with torch.no_grad():
        transform.outlet.weight.mul_(params.initial_contrast)
        transform.outlet.bias.add_(params.initial_output)  # type: ignore[union-attr]
    own = unlabeled(images, params.unlabeled_fraction, Generator().manual_seed(params.seed))
    _refuse(own, params, transform, compute)
    substitute_history: list[Row] = []
    if params.substitute:
        asked = classifier, classifier_card
        classifier, substitute_history = substitute.trained(
            params.substitute, params.seed, asked, own, compute, checkpoints
        )
        torch.manual_seed(own_seed(own_seed(params.seed)))  # neither the classifier's nor the substitute's
    head = transform.begin(classifier, classes, lambda: _first(own, params, compute))
    defense = Refine(classifier, transform, permutation, params.input_space)
    channels_last(defense.to(compute.device))
    precision = compute.precision(recipe.precision)
    kind = params.encoder.learns if params.encoder else "labels"
    answers = PseudoLabels(classifier, recipe, params.pseudo_labels == "once", compute, precision, kind)
    own = answers.given_to(own)
    encoder_history = []
    if params.encoder:
        encoder_history = train_encoder(params.encoder, params.seed, defense, head, own, answers, compute, checkpoints)
        if params.encoder.frozen:
            transform.freeze_encoder()
    batches = batches_of(own, recipe, compute)
    task = RefineTask(
        defense=defense,
        batches=batches,
        answers=answers,
        params=params,
        compute=compute,
        precision=precision,
        keep=snapshot_epochs(recipe.lasting(len(batches)).epochs, params.snapshots),
    )
    history = Run(task, recipe, "train-refine", params.seed, compute, checkpoints).train()
    if compute.rank:
        return
    with new_folder(folder) as part:
        (part / "snapshots").mkdir()
        snapshots = []
        for name, weights in task.kept.items():
            file = f"snapshots/{name}.safetensors"
            sha256 = save_tensors(part / file, refine.state(permutation, weights))
            snapshots.append(Snapshot(epoch=int(name.rpartition("-")[2]), file=file, sha256=sha256))
        card = RefineCard(
            weights_sha256="0" * 64,
            transform=params.transform,
            input_space=params.input_space,
            num_classes=len(classifier_card.classes),
            classifier_sha256=classifier_card.weights_sha256,
            snapshots=snapshots,
            training={**resolved(params, compute), "precision": precision},
        )
        refine.save(part, defense, card, head if params.encoder and params.encoder.frozen else None)
        write_history(part / "history.csv", history)
        write_history(part / "encoder_history.csv", encoder_history)
        if params.substitute:
            write_history(part / "substitute_history.csv", substitute_history)
