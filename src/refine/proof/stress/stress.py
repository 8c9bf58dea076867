"""The stress test: known backdoors are planted into copies of a model, and the copies are defended.

Nobody knows the trigger of a backdoor that may be in the user's model. But how the same defense, with images of the
same kind, fares against backdoors that were planted into this very model can be measured. It certifies nothing, see
`result.NOTE`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Generator, Tensor

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import write_json
from refine.defending.loading import load
from refine.defending.protocol.defense import Defense, NoDefense
from refine.evaluation.answers import predictions
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.proof.stress.attempts import planted, took
from refine.proof.stress.measuring import Bench, Triggered, measured, triggered
from refine.proof.stress.params import StressParams, default_plants
from refine.proof.stress.parts import Divided, divided, sum_of
from refine.proof.stress.planting import Plan, planned, poisoned
from refine.proof.stress.result import Images, Measured, Plant, Spent, StressResult
from refine.proof.stress.table import told
from refine.shards.reading.reader import Split
from refine.training.checkpoint import run_key
from refine.training.training_set import Resident, TrainingSet

log = logging.getLogger(__name__)

_TRIAL = 500
"""Images for defending, at the most, that are looked at while a backdoor is planted."""


@dataclass(frozen=True)
class Defender:
    """The defense that is tested.

    Attributes:
        name: of the defense.
        settings: all of them.
        least: images that its training needs.
        train: writes a defense's folder from clean images without labels, the folder of a classifier and that of the
            defense to be.
    """

    name: str
    settings: dict[str, Any]
    least: int
    train: Callable[[TrainingSet, Path, Path], None]


@dataclass(frozen=True)
class _Test:
    """What is the same for all plants.

    Attributes:
        model: the user's, on the device, and its card.
        params: of the stress test.
        defender: that is tested.
        parts: of the images.
        answers: int64 [N] of the model to the images for planting.
        bench: the images for measuring.
        trial: some of the images for defending, which tell whether planting has to be tried again.
        compute: device and threads.
    """

    model: tuple[Classifier, ClassifierCard]
    params: StressParams
    defender: Defender
    parts: Divided
    answers: Tensor
    bench: Bench
    trial: Bench
    compute: Compute

    def of(self, plan: Plan, work: Path) -> Plant:
        """Plants a backdoor, defends the copy and measures both; `work` takes what is needed in between."""
        params, clock = self.params, _Clock()
        with TemporaryDirectory(dir=work) as scratch:
            copy, defense = Path(scratch) / "copy", Path(scratch) / "defense"
            images, count = poisoned(plan, self.parts.planting.images, self.answers)
            rates = planted(plan, params, self.model, images, self.trial, copy)
            planting = clock.lap()
            with_trigger = triggered(plan.attack, self.bench)
            floor = self._measured(NoDefense(self.model[0]), with_trigger)
            before = self._measured(NoDefense(classifiers.load(copy)[0]), with_trigger)
            measuring = clock.lap()
            after, defending = None, 0.0
            if took(before, params) and floor.attack_success_rate.share <= params.most_floor:
                self.defender.train(Resident(self.parts.defending.images, ()), copy, defense)
                defending = clock.lap()
                after = self._measured(load(defense, copy), with_trigger)
                measuring += clock.lap()
        return Plant(
            name=plan.name,
            attack=plan.attack.setting.name,
            settings=plan.attack.params.model_dump(),
            seed=plan.seed,
            target=self.model[1].classes[plan.target],
            target_label=plan.target,
            poisoned=count,
            learning_rates=rates,
            took=after is not None,
            model=floor,
            before=before,
            after=after,
            seconds=Spent(planting=planting, defending=defending, measuring=measuring),
        )

    def _measured(self, system: Defense, with_trigger: Triggered) -> Measured:
        return measured(system.eval().to(self.compute.device), with_trigger, self.bench)

    def key(self, plan: Plan, images: str) -> str:
        """Hash of everything that the result of a plant depends on; `images` is their sum."""
        content = {
            "model": self.model[1].weights_sha256,
            "images": images if not self.bench.labeled else [images, self.bench.images.labels.tolist()],
            "plan": [plan.name, plan.attack.setting.name, plan.attack.params.model_dump(), plan.seed],
            "defense": [self.defender.name, self.defender.settings],
            "settings": self.params.model_dump(exclude={"plants"}),
        }
        return run_key(content, {"device": self.compute.device.type}, {})


def stress_test(
    model: Path,
    images: Split,
    params: StressParams,
    defender: Defender,
    compute: Compute,
    work: Path,
    labeled: bool = False,
) -> StressResult:
    """Plants backdoors into copies of a model, defends them and tells what is left of each.

    Args:
        model: folder of the user's classifier, which is not changed and may have a backdoor of its own.
        images: of the user, of the model's input size.
        params: of the stress test.
        defender: the defense.
        compute: device and threads.
        work: folder that takes the result of each plant when it is there, so that an interrupted test goes on after it;
            the caller removes it.
        labeled: whether the labels of the images are true ones; the benign accuracy is measured then.

    Raises:
        UserError: the model cannot be used, there are too few images, or a plant's attack does not fit.
    """
    classifier, card = classifiers.load(model)
    _refuse_other(model, card, images, labeled)
    classifier.to(compute.device)
    parts = divided(images, params.parts, params.seed, defender.least)
    planting, defending, measuring = (
        predictions(NoDefense(classifier).eval(), split, params.batch_size, compute)
        for split in (parts.planting, parts.defending, parts.measuring)
    )
    bench = Bench(parts.measuring, measuring, labeled, params.batch_size, compute)
    some = torch.arange(len(defending)) % -(-len(defending) // _TRIAL) == 0
    trial = Bench(parts.defending.subset(some), defending[some], False, params.batch_size, compute)
    if any(bool((each.answers == each.answers[0]).all()) for each in (trial, bench)):
        raise UserError(f"{model} gives the same answer to all images; give images of several classes")
    test = _Test((classifier, card), params, defender, parts, planting, bench, trial, compute)
    images_sha256 = sum_of(images)
    plants = [_kept(test, plan, images_sha256, work) for plan in _plans(params, card)]
    return _result(test, plants, images_sha256)


def _refuse_other(model: Path, card: ClassifierCard, images: Split, labeled: bool) -> None:
    if images.manifest.side != card.input_side:
        raise UserError(
            f"{model} takes images of {card.input_side} pixels, these have {images.manifest.side}; "
            "give images that it was made for"
        )
    if labeled and len(images.manifest.classes) != len(card.classes):
        raise UserError(
            f"{model} knows {len(card.classes)} classes, the labels of the images are of "
            f"{len(images.manifest.classes)}; give images that it was made for, or leave their labels out"
        )


def _plans(params: StressParams, card: ClassifierCard) -> list[Plan]:
    """All backdoors to plant, each with a target of its own as long as there are enough classes."""
    plants = default_plants(card.input_side) if params.plants is None else params.plants
    targets = torch.randperm(len(card.classes), generator=Generator().manual_seed(params.seed)).tolist()
    setting = len(card.classes), card.input_side
    return [
        planned(name, each, targets[number % len(targets)], params.seed + number, setting)
        for number, (name, each) in enumerate(plants.items())
    ]


def _kept(test: _Test, plan: Plan, images_sha256: str, work: Path) -> Plant:
    """The result of a plant, of an interrupted test if it is there."""
    place = work / f"{plan.name}-{test.key(plan, images_sha256)}.json"
    if place.exists():
        log.info("%s: %s was finished before", place, plan.name)
        return read_document(place, Plant, "remove it")
    work.mkdir(parents=True, exist_ok=True)
    found = test.of(plan, work)
    write_json(place, found.model_dump())
    log.info("%s", told(found))
    return found


def _result(test: _Test, plants: list[Plant], images_sha256: str) -> StressResult:
    left = {plant.name: plant.after.attack_success_rate.share for plant in plants if plant.after}
    total, defending = (sum(getattr(plant.seconds, name) for plant in plants) for name in ("total", "defending"))
    parts = test.parts
    return StressResult(
        model_sha256=test.model[1].weights_sha256,
        images=Images(
            planting=len(parts.planting.keys),
            defending=len(parts.defending.keys),
            measuring=len(parts.measuring.keys),
            sha256=images_sha256,
        ),
        labeled=test.bench.labeled,
        defense=test.defender.name,
        defense_settings=test.defender.settings,
        settings=test.params.model_dump(),
        plants=plants,
        worst=max(left, key=lambda name: left[name]) if left else None,
        seconds=round(total, 1),
        defense_multiple=round(total / (defending / len(left)), 2) if defending else None,
    )


class _Clock:
    """Seconds since the lap before."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, rounded to a tenth."""
        before, self._last = self._last, time.monotonic()
        return round(self._last - before, 1)
