"""The benign classifier that a clean-label attack perturbs images against: trained here, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.backdoor.train import BackdoorTask
from refine.core.errors import UserError
from refine.core.files import inside
from refine.models import classifier as classifiers
from refine.models.architecture import Architecture
from refine.models.classifier import Classifier, Normalization
from refine.models.device import Compute, compute
from refine.models.layout import channels_last
from refine.poisoning.adversarial.pgd import ascend
from refine.poisoning.adversarial.settings import Perturbation, SourceModel
from refine.poisoning.attack import Setting
from refine.poisoning.memory import learned_from
from refine.shards.reading.pixels import Images
from refine.training.batches import Batch
from refine.training.lone_image import refuse_lone_image
from refine.training.loop import Run, Step, batches_of
from refine.training.training_set import Resident

_FLATTEST = 1 / 255


class HasSource(Protocol):
    """Settings of an attack that perturbs images against a benign classifier."""

    @property
    def source(self) -> SourceModel: ...

    @property
    def perturbation(self) -> Perturbation: ...


def source_model(
    params: HasSource, images: Images, labels: Tensor, setting: Setting, generator: Generator
) -> Classifier:
    """Returns the classifier, frozen and on the device.

    Args:
        params: settings of the attack.
        images: clean training images, uint8 [N, 3, side, side]; none is read where the user gives the classifier.
        labels: int64 [N].
        setting: what the attack is applied to.
        generator: on the CPU.

    Raises:
        UserError: the user's folder does not hold a classifier for this data set.
    """
    if params.source.folder is None:
        learned = learned_from(images, labels, params.source.learns_from, "source.learns_from", setting, generator)
        return _trained(params, *learned, setting, generator)
    return _given(params.source.folder, setting).to(compute(setting.machine).device)


def new_classifier(network: Architecture, images: Tensor, setting: Setting, resolved: Compute) -> Classifier:
    """A classifier for these images with new weights, on the device.

    Args:
        network: its architecture.
        images: uint8 [N, 3, side, side].
        setting: what the attack is applied to.
        resolved: device and threads.
    """
    classifier = classifiers.build(network, setting.num_classes, normalization_of(images), setting.side)
    channels_last(classifier.to(resolved.device))
    return classifier


def _given(name: str, setting: Setting) -> Classifier:
    if setting.own_files is None:
        raise LookupError("Setting.own_files says where the user's files lie")
    folder = inside(setting.own_files, name)
    classifier, card = classifiers.load(folder)
    expected, found = (setting.num_classes, setting.side), (len(card.classes), card.input_side)
    if expected != found:
        raise UserError(
            f"{folder} is a classifier of {found[0]} classes for images of {found[1]} pixels, but the data set has "
            f"{expected[0]} classes and {expected[1]} pixels; set {setting.section}.source.folder to another one"
        )
    return classifier


def _trained(params: HasSource, images: Tensor, labels: Tensor, setting: Setting, generator: Generator) -> Classifier:
    source, recipe = params.source, params.source.recipe.within(setting.section)
    resolved = compute(setting.machine)
    seed = int(torch.randint(2**31, (), generator=generator))
    torch.manual_seed(seed)
    classifier = new_classifier(source.network, images, setting, resolved)
    # The training needs the label of each image, and whether it is poisoned, which none is.
    training_set = Resident(images, (labels, torch.zeros_like(labels)), resolved.device)
    batches = batches_of(training_set, recipe, resolved)
    refuse_lone_image(classifier, training_set, recipe, resolved)
    classifiers.init_from_data(classifier, lambda: next(iter(batches.epoch(seed))).pixels)
    task = SourceTask(
        classifier=classifier,
        batches=batches,
        recipe=recipe,
        attack=AttackerAugmentation(),
        compute=resolved,
        precision=resolved.precision(recipe.precision),
        source=source,
        perturbation=params.perturbation,
    )
    Run(task, recipe, "the attack's source model", seed, resolved, None).train()
    return classifiers.freeze(classifier)


@dataclass(kw_only=True)
class SourceTask(BackdoorTask):
    """Benign training; with `robust_steps`, on images that are perturbed against the current network."""

    source: SourceModel
    perturbation: Perturbation

    def step(self, batch: Batch) -> Step:
        if self.source.robust_steps:
            settings = self.perturbation.model_copy(update={"steps": self.source.robust_steps, "random_start": False})
            learned = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            self.module.eval().requires_grad_(False)  # only the gradient of the pixels is needed
            pixels = ascend(self.classifier, batch.pixels, batch.fields[0], settings, self.generator)
            self.module.train()
            for parameter in learned:
                parameter.requires_grad_()
            batch = replace(batch, pixels=pixels)
        return super().step(batch)


def normalization_of(images: Tensor) -> Normalization:
    """Mean and standard deviation of each channel of uint8 [N, 3, H, W], scaled to [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(3):
        share = images[:, channel].flatten().bincount(minlength=256).double() / images[:, channel].numel()
        mean.append(float(share @ levels))
        std.append(max(_FLATTEST, float(share @ (levels - mean[-1]) ** 2) ** 0.5))
    return Normalization(mean=mean, std=std)
