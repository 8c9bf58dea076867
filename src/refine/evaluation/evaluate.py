"""Measuring a defended classifier beside the bare one on all test images: figures, curves and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refine.core.errors import UserError
from refine.core.files import new_folder, write_json
from refine.defending import loading
from refine.defending.protocol.defense import Defense, NoDefense
from refine.evaluation.answers import answers, answers_of_all, predictions
from refine.evaluation.metrics import Answers, agreeing, agreement, diagnose, judged, measure, misread
from refine.evaluation.params import EvaluateParams
from refine.evaluation.pictures import Systems, draw_features, draw_gallery
from refine.evaluation.tables import write_confusion, write_csv
from refine.evaluation.test_sets import TestSets, choose
from refine.evaluation.wasserstein import distances, look_at_all
from refine.models import classifier as classifiers
from refine.models.device import Compute

BARE = "no_defense"
_CURVES = ("benign_accuracy", "attack_success_rate")


@dataclass(frozen=True)
class Models:
    """Folders of a classifier and of a defense that was made for it, and the defense's name."""

    classifier: Path
    defense: Path
    name: str


@dataclass(frozen=True)
class Outputs:
    """Where figures and pictures go.

    Attributes:
        metrics: folder of one JSON for each system, which git tracks.
        diagnostics: the JSON of everything else.
        plots: folder of tables and pictures.
        bare: whether the JSON of the classifier without defense is written too.
    """

    metrics: Path
    diagnostics: Path
    plots: Path
    bare: bool


@dataclass(frozen=True)
class Measured:
    """Results of an evaluation.

    Attributes:
        figures: the content of each system's metrics file by its name, the bare classifier first.
        diagnostics: everything else.
        titles: what the systems are called.
    """

    figures: dict[str, dict[str, Any]]
    diagnostics: dict[str, Any]
    titles: dict[str, str]


def evaluate(params: EvaluateParams, tests: TestSets, models: Models, compute: Compute, outputs: Outputs) -> Measured:
    """Measures the bare and the defended classifier and writes all outputs.

    Where the test images have no labels, the answers of the bare classifier take their place, and the only figure is
    how far the defended one agrees with it.

    Raises:
        UserError: a folder cannot be used, or the classifier knows more or fewer classes than the data set.
    """
    classifier, card = classifiers.load(models.classifier)
    bare = NoDefense(classifier).eval().to(compute.device)
    labeled = tests.clean.manifest.labeled
    if not labeled:
        answer = predictions(bare, tests.clean, params.batch_size, compute)
        tests = tests.labeled_by(answer, card.classes)
    truth, classes = tests.truth, tests.clean.manifest.classes
    if len(card.classes) != len(classes):
        raise UserError(
            f"{models.classifier} knows {len(card.classes)} classes, the data set has {len(classes)}; "
            "train the classifier on this data set"
        )
    defense = loading.load(models.defense, models.classifier).to(compute.device)
    systems: dict[str, Defense] = {BARE: bare, models.name: defense}
    answered = answers_of_all(systems, tests, params.batch_size, compute)
    shares = {name: measure(given, truth) for name, given in answered.items()}
    figures = {name: judged(shares[BARE], own, truth) for name, own in shares.items()}
    diagnostics = _diagnostics(params, tests, answered, shares[BARE])
    if labeled:
        diagnostics |= _parts(tests, models, answered[BARE], params.batch_size, compute)
    else:
        figures = {name: agreement(own) for name, own in figures.items()}
        diagnostics = {"images": diagnostics["images"]}
    looks = look_at_all(classifier, defense, tests, choose(truth, params.diagnostic_images), params.batch_size, compute)
    if looks is not None:
        diagnostics["wasserstein"] = distances(looks, defense)
    with new_folder(outputs.plots) as part:
        for name, given in answered.items():
            write_confusion(part / f"confusion_{name}.csv", given.benign, truth.labels, classes)
            write_confusion(part / f"confusion_triggered_{name}.csv", given.triggered, truth.behind, classes)
        curves = [*_curves(tests, models, shares[models.name], params.batch_size, compute)]
        if curves:
            write_csv(part / "snapshots.csv", ("epoch", *_CURVES), curves)
        draw_gallery(part / "gallery.png", tests, Systems(answered, defense), params.gallery_images, compute)
        if looks is not None:
            draw_features(part / "features.png", looks, defense.title, tests)
        write_json(outputs.diagnostics, diagnostics)
        for name, own in figures.items():
            if outputs.bare or name != BARE:
                write_json(outputs.metrics / f"{name}.json", own)
    return Measured(figures, diagnostics, {name: system.title for name, system in systems.items()})


def _diagnostics(
    params: EvaluateParams, tests: TestSets, answered: dict[str, Answers], bare: dict[str, float]
) -> dict[str, Any]:
    truth, classes = tests.truth, tests.clean.manifest.classes
    found: dict[str, Any] = {"images": {"benign": len(truth.labels), "triggered": len(truth.given)}}
    for name, given in answered.items():
        found[name] = diagnose(given, truth)
        if name != BARE:
            found[name]["agreement"] = agreeing(given, answered[BARE])
    if len(truth.given):
        found["attack_succeeded"] = bare["attack_success_rate"] >= params.least_asr
        found["misread"] = {name: misread(given.triggered, truth, classes) for name, given in answered.items()}
    return found


def _parts(tests: TestSets, models: Models, bare: Answers, batch_size: int, compute: Compute) -> dict[str, Any]:
    """Figures of what inside the defense answers by itself, as in a metrics file, and how far it agrees with the bare
    classifier; nothing where nothing does."""
    found, before = {}, measure(bare, tests.truth)
    for name, part in loading.parts(models.defense, models.classifier).items():
        given = answers(part.to(compute.device), tests, batch_size, compute)
        found[name] = judged(before, measure(given, tests.truth), tests.truth)
        found[name]["agreement"] = agreeing(given, bare)
    return {"parts": found} if found else {}


def _curves(
    tests: TestSets, models: Models, final: dict[str, float], batch_size: int, compute: Compute
) -> Iterator[tuple[float | str, ...]]:
    """Each kept epoch, and benign accuracy and attack success rate of the defense after it, "" without an attack.

    Nothing is chosen by them.

    Args:
        final: shares of the finished defense, which is the last snapshot.
    """
    epochs = loading.snapshots(models.defense)
    for epoch in epochs[:-1]:
        defense = loading.load(models.defense, models.classifier, epoch).to(compute.device)
        figures = measure(answers(defense, tests, batch_size, compute), tests.truth)
        yield epoch, *(figures.get(name, "") for name in _CURVES)
    if epochs:
        yield epochs[-1], *(final.get(name, "") for name in _CURVES)
