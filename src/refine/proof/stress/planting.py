"""Planting a known backdoor into a copy of a classifier by a short fine-tuning.

No label is used: the copy goes on answering clean images as the classifier does, because it is trained on the
classifier's probabilities for them, and triggered images as the attacker wants. Nothing here needs the classifier to be
clean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.params import Section, sentence
from refine.core.registry import ATTACKS, component
from refine.defending.pseudo_labels import PseudoLabels
from refine.defending.retraining import Retraining, trainable
from refine.defending.train import Task
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.poisoning.attack import AnyAttack, Setting
from refine.poisoning.overlay import to_levels
from refine.proof.stress.params import PlantingRecipe, PlantParams
from refine.shards.reading.pixels import to_pixels
from refine.training.batches import Batch
from refine.training.loop import Row, Run
from refine.training.training_set import Resident

_AT_ONCE = 256  # bounds the memory of float arithmetic in triggers
_POISONED, _COVER = 1, 2
_MOMENTUM = 0.05


@dataclass(frozen=True)
class Plan:
    """A backdoor to plant.

    Attributes:
        name: of the plant.
        attack: without tensors yet.
        seed: of everything random.
    """

    name: str
    attack: AnyAttack
    seed: int

    @property
    def target(self) -> int:
        """The class that the trigger leads to."""
        target: int = self.attack.params.target
        return target


def planned(name: str, params: PlantParams, target: int, seed: int, setting: tuple[int, int]) -> Plan:
    """The attack of a plant, ready to be prepared.

    Args:
        name: of the plant.
        params: of the plant.
        target: class that the trigger shall lead to.
        seed: of everything random.
        setting: number of classes, and side of the images in pixels.

    Raises:
        UserError: there is no such attack, its settings do not fit, or it cannot be planted by fine-tuning.
    """
    place = f"stress.plants.{name}"
    module = component(ATTACKS, params.attack, f"{place}.attack")
    model: type[Section] = module.Params
    if not {"rate", "target"} <= set(model.model_fields):
        raise UserError(f"{place}: {params.attack} has no rate or no target; choose another attack, such as badnets")
    try:
        settings = model.model_validate({**params.settings, "target": target})
    except ValidationError as error:
        raise UserError(sentence(f"{place}.settings", error)) from None
    attack: AnyAttack = module.Attack(settings, Setting(*setting, name=params.attack))
    special = attack.attacker_augmentation() != AttackerAugmentation() or attack.after_flips
    if special or attack.chooses_from == "the target class":
        raise UserError(
            f"{place}: {params.attack} does more than to put triggers on images and to relabel them; "
            "choose another attack, such as badnets"
        )
    return Plan(name, attack, seed)


class _FineTuning(Retraining):
    """Retraining with triggers behind the augmentation, in which batch normalization keeps its statistics in the end.

    An image with a trigger then differs from others by nothing else.

    Attributes:
        attack: with its tensors.
        moving: share of the epochs in which batch normalization moves its statistics.
    """

    attack: AnyAttack
    moving = 1.0

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self.batch_statistics = epoch <= self.moving * self.recipe.epochs

    def augmented(self, batch: Batch) -> Tensor:
        _, kinds, numbers = (field.cpu() for field in batch.fields)
        levels = to_levels(super().augmented(batch).cpu() * 255)
        for kind, change in ((_POISONED, self.attack.poison), (_COVER, self.attack.cover)):
            rows = (kinds == kind).nonzero().flatten()
            levels[rows] = changed(levels[rows], numbers[rows], change)
        return to_pixels(levels).to(batch.pixels.device).contiguous(memory_format=torch.channels_last)


def poisoned(plan: Plan, images: Tensor, answers: Tensor) -> tuple[Resident, int]:
    """Images to fine-tune on: all of them as they are, and some of them a second time, which are to get the trigger.

    The attack gets its tensors here. Images with a trigger that keep their class, such as WaNet's noise samples, are a
    third kind.

    Args:
        plan: of the backdoor.
        images: uint8 [N, 3, side, side].
        answers: int64 [N], the classifier's answers to them.

    Returns:
        A training set without any trigger yet, with three fields: the label, the kind, and the number that the attack
        takes beside an image. And how many images get the attacker's label.
    """
    attack, generator = plan.attack, Generator().manual_seed(plan.seed)
    chosen = attack.choose(answers, generator)
    attack.tensors = attack.prepare(images, answers, chosen, generator)
    rows = torch.cat([torch.arange(len(images)), chosen.poisoned, chosen.cover])
    counts = len(images), len(chosen.poisoned), len(chosen.cover)
    kinds = torch.cat([torch.full((count,), kind) for kind, count in enumerate(counts)])
    numbers = torch.cat([torch.arange(count) for count in counts])
    labels = torch.where(kinds == _POISONED, attack.relabel(answers[rows]), answers[rows])
    return Resident(images[rows], (labels, kinds, numbers)), len(chosen.poisoned)


def changed(images: Tensor, numbers: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Images uint8 [n, 3, side, side] after a method of an attack that takes them and `numbers`; of the same shape."""
    parts = zip(torch.split(images, _AT_ONCE), torch.split(numbers, _AT_ONCE), strict=True)
    return torch.cat([change(some, of) for some, of in parts]) if len(images) else images


def plant(
    plan: Plan,
    recipe: PlantingRecipe,
    model: tuple[Classifier, ClassifierCard],
    images: Resident,
    compute: Compute,
    folder: Path,
) -> list[Row]:
    """Fine-tunes a copy of a classifier and writes its folder.

    Args:
        plan: of the backdoor, with its tensors.
        recipe: of the fine-tuning.
        model: the classifier on its device, which is not changed, and its card.
        images: as `poisoned` gives them.
        compute: device and threads.
        folder: of the copy.

    Returns:
        The history, a row per epoch: how often the copy says what it should, of images with the attacker's label
        (`planted`) and of all others (`agreement`).

    Raises:
        UserError: the images cannot be cut into batches, or the weights are no longer finite.
    """
    classifier, card = model
    task = Task(None, plan.seed, classifier, card, Path(), compute, folder)
    answers = PseudoLabels(classifier, recipe, False, compute, compute.precision(recipe.precision))

    def loss(logits: Tensor, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels, given = batch.fields[0], batch.fields[1] == _POISONED
        said = answers.logits_of(pixels).softmax(dim=1)
        wanted = torch.where(given.view(-1, 1), as_sure_as(said, labels), said)
        right = logits.argmax(dim=1) == wanted.argmax(dim=1)
        return {
            "loss": functional.cross_entropy(logits, wanted),
            "planted": _share(right & given, given),
            "agreement": _share(right & ~given, ~given),
        }

    copy = trainable(task)
    _slow_statistics(copy)
    fine_tuning = _FineTuning(copy, images, recipe, loss, compute)
    fine_tuning.attack, fine_tuning.moving = plan.attack, recipe.batch_statistics
    history = Run(fine_tuning, fine_tuning.recipe, f"plant {plan.name}", plan.seed, compute, None).train()
    with new_folder(folder) as part:
        training = {"planted": plan.name, "recipe": recipe.model_dump()}
        classifiers.save(part, copy, card.model_copy(update={"training": training}))
    return history


def _slow_statistics(classifier: Classifier) -> None:
    """Lets running statistics follow the batches slowly, as they stay what they are when they stop moving."""
    for module in classifier.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = min(module.momentum, _MOMENTUM)


def as_sure_as(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Probabilities float [N, K] of these labels, int64 [N], as high as those of other answers are on average.

    A copy that had to be surer of the target than the classifier ever is (one trained with label smoothing, say) would
    change its answers to all images.
    """
    sure = probabilities.amax(dim=1).mean()
    target = functional.one_hot(labels, probabilities.shape[1]).to(probabilities.dtype)
    return target * sure + (1 - target) * (1 - sure) / (probabilities.shape[1] - 1)


def _share(hits: Tensor, of: Tensor) -> Tensor:
    return hits.sum() / of.sum().clamp(min=1)
