"""The stress test on finished experiments, beside what the defense does to the backdoor that is really there.

Each experiment is a folder as the pipeline leaves it. Of its training images the user of the story has a few; with
them the stress test runs, and with the same ones the model itself is defended. The true trigger, which the user does
not know, is then tried on that defense.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Generator

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import new_file, write_json
from refine.core.params import ParamsFile
from refine.core.strict import Strict
from refine.defending.loading import load
from refine.defending.protocol.defense import NoDefense
from refine.evaluation.answers import answers
from refine.evaluation.metrics import interval, measure
from refine.evaluation.test_sets import TestSets
from refine.models import classifier as classifiers
from refine.models.device import Compute
from refine.poisoning.params import PoisonDatasetParams
from refine.poisoning.saved import SavedAttack
from refine.proof.stress.params import StressParams
from refine.proof.stress.result import Plant, StressResult
from refine.proof.stress.stress import Defender, stress_test
from refine.shards.reading.held_out import of_defender
from refine.shards.reading.reader import Split, read_split
from refine.training.training_set import Resident, TrainingSet
from refine_lab.projects import ATTACK, CLASSIFIER, PARAMS, RAW, TRIGGERED

log = logging.getLogger(__name__)

_REMEDY = "remove it, and it is computed again"


@dataclass(frozen=True)
class Settings:
    """Attributes:
    images: that the user has; all images of an experiment where there are fewer.
    seed: of the choice of these images.
    params: of the stress test.
    defender: gives the defense of both the copies and the model itself, from the classifier's folder and the images.
    compute: device and threads.
    """

    images: int
    seed: int
    params: StressParams
    defender: Callable[[Path, TrainingSet], Defender]
    compute: Compute


def compare(experiments: list[Path], settings: Settings, out: Path) -> pd.DataFrame:
    """Runs the stress test on each experiment and writes `stress.csv`, a row for each plant.

    What is finished stays in a folder for each experiment, and is not computed again.

    Args:
        experiments: folders with the data, the classifier and the parameters of a finished run.
        settings: the same for all.
        out: folder for the table and for what each experiment gave.

    Raises:
        UserError: an experiment is not finished, or two folders have the same name.
    """
    if len({path.resolve().name for path in experiments}) < len(experiments):
        raise UserError("two experiments have the same folder name; rename one")
    rows: list[dict[str, Any]] = []
    for experiment in experiments:
        rows += _rows(experiment, settings, out / experiment.resolve().name)
        table = pd.DataFrame(rows)
        with new_file(out / "stress.csv") as part:
            table.to_csv(part, index=False, lineterminator="\n")
    return table


class Truth(Strict):
    """What the defense does to the experiment's own backdoor, on its test images.

    Attributes:
        before: shares of the model, see `evaluation.metrics.measure`; without an attack, the benign accuracy alone.
        after: of the defended model.
        triggered: test images with the trigger.
    """

    before: dict[str, float]
    after: dict[str, float]
    triggered: int


def _rows(experiment: Path, settings: Settings, place: Path) -> list[dict[str, Any]]:
    log.info("%s", experiment)
    attack = read_document(experiment / ATTACK, SavedAttack, _REMEDY).attack
    images = _images_of_user(experiment, settings)
    stress, truth = _stress(experiment, images, settings, place), _truth(experiment, images, settings, place)
    about = {"experiment": place.name, "attack": attack, "images": len(images.keys), **_true_columns(truth)}
    return [{**about, **_columns(plant), "worst": plant.name == stress.worst} for plant in stress.plants]


def _images_of_user(experiment: Path, settings: Settings) -> Split:
    """Some of the training images that are not the attacker's, or of all where none are held out.

    Raises:
        UserError: the defender has other images than these.
    """
    split = read_split(experiment / RAW[0])
    file = ParamsFile(experiment / PARAMS)
    data = file.section("poison_dataset", PoisonDatasetParams)
    if file.content.get("other_images") or data.contaminated:
        raise UserError(
            f"the defender of {experiment} has other images than the data set's, or contaminated ones, and a stress "
            "test needs labels; take an experiment without other_images and poison_dataset.contaminated"
        )
    share = data.held_out
    own = of_defender(len(split.keys), share).nonzero().flatten()
    rows = own[torch.randperm(len(own), generator=Generator().manual_seed(settings.seed))[: settings.images]]
    selected = torch.zeros(len(split.keys), dtype=torch.bool)
    selected[rows] = True
    return split.subset(selected)


def _stress(experiment: Path, images: Split, settings: Settings, place: Path) -> StressResult:
    file = place / "stress.json"
    if not file.exists():
        model, work = experiment / CLASSIFIER, place / "plants"
        defender = settings.defender(model, Resident(images.images, ()))
        found = stress_test(model, images, settings.params, defender, settings.compute, work, labeled=True)
        write_json(file, found.model_dump())
    return read_document(file, StressResult, _REMEDY)


def _truth(experiment: Path, images: Split, settings: Settings, place: Path) -> Truth:
    file, compute, defense = place / "truth.json", settings.compute, place / "defense"
    if not file.exists():
        if not defense.exists():
            own = Resident(images.images, ())
            settings.defender(experiment / CLASSIFIER, own).train(own, experiment / CLASSIFIER, defense)
        tests = TestSets(read_split(experiment / RAW[1]), read_split(experiment / TRIGGERED))
        bare = NoDefense(classifiers.load(experiment / CLASSIFIER)[0]).eval()
        before, after = (
            measure(answers(system.to(compute.device), tests, settings.params.batch_size, compute), tests.truth)
            for system in (bare, load(defense, experiment / CLASSIFIER))
        )
        write_json(file, Truth(before=before, after=after, triggered=len(tests.triggered.keys)).model_dump())
    return read_document(file, Truth, _REMEDY)


def _true_columns(truth: Truth) -> dict[str, Any]:
    asr = truth.after.get("attack_success_rate")
    low, high = ("", "") if asr is None else interval(asr, truth.triggered)
    return {
        "true_ba_before": truth.before["benign_accuracy"],
        "true_ba_after": truth.after["benign_accuracy"],
        "true_asr_before": truth.before.get("attack_success_rate", ""),
        "true_asr_after": "" if asr is None else asr,
        "true_asr_after_low": low,
        "true_asr_after_high": high,
        "true_floor": truth.before.get("asr_floor_clean", ""),
    }


def _columns(plant: Plant) -> dict[str, Any]:
    after = plant.after.attack_success_rate if plant.after else None
    low, high = after.interval_95 if after else ("", "")
    return {
        "plant": plant.name,
        "plant_attack": plant.attack,
        "target": plant.target_label,
        "took": plant.took,
        "floor": plant.model.attack_success_rate.share,
        "asr_before": plant.before.attack_success_rate.share,
        "agreement_before": plant.before.agreement.share,
        "asr_after": after.share if after else "",
        "asr_after_low": low,
        "asr_after_high": high,
        "floor_after": plant.after.target_without_trigger.share if plant.after else "",
        "agreement_after": plant.after.agreement.share if plant.after else "",
        "robust_agreement_after": plant.after.robust_agreement.share if plant.after else "",
        "planting_seconds": plant.seconds.planting,
        "defending_seconds": plant.seconds.defending,
    }
