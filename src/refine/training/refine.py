"""Training the REFINE transform: no label is used, and nothing but the transform changes (spec 1.3, 1.5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.data.augment import augment
from refine.data.batches import Batches
from refine.data.tensors import save_tensors
from refine.defenses import refine
from refine.defenses.label_map import derangement, remap
from refine.defenses.refine import Refine, RefineCard, Snapshot
from refine.defenses.refine_loss import supcon, utility
from refine.models import classifier as classifiers
from refine.models.device import Compute
from refine.models.unet import UNet
from refine.params.train_refine import RefineRecipe, TrainRefineParams
from refine.system.errors import UserError
from refine.system.files import new_folder
from refine.training.loop import Batch, Step, seeded, train, write_history


@dataclass
class RefineTask:
    """See `training.loop.Task`.

    Attributes:
        module: the transform, which is what is trained.
        batches: unlabeled images.
        kept: states of the defence after the epochs in `keep`.
    """

    defence: Refine
    batches: Batches
    params: TrainRefineParams
    generator: Generator
    compute: Compute
    precision: str
    keep: list[int]
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = self.defence.transform

    def step(self, batch: Batch) -> Step:
        defence, loss = self.defence, self.params.loss
        with torch.no_grad():
            pixels = augment(batch[0], self.params.recipe.augment, self.generator)
            with self.compute.autocast(self.precision):
                pseudo_labels = defence.classifier(pixels).argmax(dim=1)
        with self.compute.autocast(self.precision):
            images = defence.transformed(pixels)
            raw = defence.logits(images)
        remapped = remap(raw.float().softmax(dim=1), defence.permutation)
        terms = {"utility": utility(remapped, pseudo_labels)}
        total = terms["utility"]
        if loss.supcon_weight:
            terms["supcon"] = supcon(images, pseudo_labels, loss.supcon_temperature)
            total = total + loss.supcon_weight * terms["supcon"]
        with torch.no_grad():
            terms["agreement"] = (remapped.argmax(dim=1) == pseudo_labels).float().mean()
            terms["clamped_low"] = (images <= 0).float().mean()
            terms["clamped_high"] = (images >= 1).float().mean()
        return Step(total, {"loss": total, **terms})

    def after_epoch(self, epoch: int) -> None:
        if epoch in self.keep:
            state = refine.state(self.defence)
            self.kept[epoch] = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def snapshot_epochs(epochs: int, snapshots: int) -> list[int]:
    """Epochs after which a snapshot is kept: evenly spaced, the last one included, no more than there are."""
    return sorted({-(-epochs * number // snapshots) for number in range(1, snapshots + 1)})


def unlabeled(images: Tensor, fraction: float, generator: Generator) -> Tensor:
    """The defender's share of the training images, chosen uniformly; all of them in their order for 1.

    Raises:
        UserError: the share holds no image.
    """
    if fraction == 1:
        return images
    count = round(fraction * len(images))
    if count == 0:
        raise UserError(f"train_refine.unlabeled_fraction {fraction} of {len(images)} images is none; raise it")
    return images[torch.randperm(len(images), generator=generator)[:count]]


def _refuse_lone_image(images: Tensor, recipe: RefineRecipe) -> None:
    """Below 32 pixels the U-Net's innermost map is one pixel, of which a batch of one image has no variance."""
    last = 0 if recipe.drop_last else len(images) % recipe.batch_size
    if 1 in (last, recipe.batch_size) and images.shape[-1] < 32:
        raise UserError(
            f"a batch would hold a single one of the {len(images)} images, too little to normalise at "
            f"{images.shape[-1]} pixels; change train_refine.recipe.batch_size or set drop_last"
        )


def train_refine(
    params: TrainRefineParams, images: Tensor, classifier_folder: Path, compute: Compute, folder: Path
) -> str:
    """Trains the transform for a classifier and writes the defence's folder.

    Args:
        params: of the stage.
        images: uint8 [N, 3, H, W], benign and unlabeled.
        classifier_folder: of anybody's classifier.
        compute: device and threads.
        folder: takes weights, card, snapshots and history.

    Returns:
        The resolved precision.

    Raises:
        UserError: the classifier cannot be loaded or takes images of another size, or a batch is too small.
    """
    recipe = params.recipe
    classifier, classifier_card = classifiers.load(classifier_folder)
    if classifier_card.input_side != images.shape[-1]:
        raise UserError(
            f"{classifier_folder} takes images of {classifier_card.input_side} pixels, the data set has "
            f"{images.shape[-1]}; train the classifier on this data set"
        )
    order, draws = seeded(params.seed, compute.device)
    permutation = derangement(len(classifier_card.classes), params.permutation_seed)
    defence = Refine(classifier, UNet(params.first_channels), permutation, params.input_space)
    defence.to(compute.device).to(memory_format=torch.channels_last)
    precision = compute.precision(recipe.precision)
    own = unlabeled(images, params.unlabeled_fraction, order)
    _refuse_lone_image(own, recipe)
    task = RefineTask(
        defence=defence,
        batches=Batches(own, recipe.batch_size, recipe.drop_last, compute.device, order),
        params=params,
        generator=draws,
        compute=compute,
        precision=precision,
        keep=snapshot_epochs(recipe.epochs, params.snapshots),
    )
    history = train(task, recipe, "train-refine")
    with new_folder(folder) as part:
        (part / "snapshots").mkdir()
        snapshots = []
        for epoch, tensors in task.kept.items():
            file = f"snapshots/epoch-{epoch:04d}.safetensors"
            snapshots.append(Snapshot(epoch=epoch, file=file, sha256=save_tensors(part / file, tensors)))
        card = RefineCard(
            weights_sha256="0" * 64,
            first_channels=params.first_channels,
            input_space=params.input_space,
            num_classes=len(classifier_card.classes),
            classifier_sha256=classifier_card.weights_sha256,
            snapshots=snapshots,
            training={**params.model_dump(), "precision": precision},
        )
        refine.save(part, defence, card)
        write_history(part / "history.csv", history)
    return precision
