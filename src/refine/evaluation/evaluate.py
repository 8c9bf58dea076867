"""The work of the stage evaluate: both systems on all test images, the curves, and the pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import new_folder, write_json
from refine.core.progress import progress
from refine.defenses.refine import defense as refine
from refine.defenses.refine.defense import Refine
from refine.evaluation.metrics import Answers, Truth, measure, misread
from refine.evaluation.params import EvaluateParams
from refine.evaluation.pictures import draw_features, draw_gallery
from refine.evaluation.test_sets import Diagnosed, TestSets, choose
from refine.evaluation.wasserstein import Both, distances, look
from refine.models.card import read_card
from refine.models.classifier import Classifier
from refine.models.device import Compute
from refine.shards.reading.pixels import in_batches
from refine.shards.reading.reader import Split

_CURVES = ("benign_accuracy", "attack_success_rate")


def evaluate(
    params: EvaluateParams, tests: TestSets, models: tuple[Path, Path], compute: Compute, metrics: Path, plots: Path
) -> dict[str, Any]:
    """Measures the bare and the defended classifier and writes figures, curves and pictures.

    Args:
        params: of the stage.
        tests: clean and triggered test images.
        models: folders of the classifier and of its defense.
        compute: device and threads.
        metrics: the JSON that git tracks.
        plots: folder of tables and pictures.

    Returns:
        The content of `metrics`.

    Raises:
        UserError: a folder cannot be used, or the classifier knows more or fewer classes than the data set.
    """
    classifier_folder, refine_folder = models
    truth = tests.truth
    defense = refine.load(refine_folder, classifier_folder).to(compute.device)
    known, there = len(defense.permutation), len(tests.clean.manifest.classes)
    if known != there:
        raise UserError(
            f"{classifier_folder} knows {known} classes, the data set has {there}; "
            "train the classifier on this data set"
        )
    answered = {
        "no_defense": bare_answers(defense.classifier, tests, params.batch_size, compute),
        "refine": defended_answers(defense, tests, params.batch_size, compute),
    }
    classes = tests.clean.manifest.classes
    figures: dict[str, Any] = {"images": {"benign": len(truth.labels), "triggered": len(truth.given)}}
    figures |= {system: measure(answers, truth) for system, answers in answered.items()}
    if len(truth.given):
        figures["attack_succeeded"] = figures["no_defense"]["attack_success_rate"] >= params.least_asr
        figures["misread"] = {
            system: misread(answers.triggered.argmax(dim=1), truth, classes) for system, answers in answered.items()
        }
    chosen = choose(truth, params.diagnostic_images)
    benign, attacked = _looks(tests, truth, chosen, defense, params.batch_size, compute)
    figures["wasserstein"] = distances(benign, attacked, defense.permutation.cpu())
    with new_folder(plots) as part:
        for system, answers in answered.items():
            _write_confusion(part / f"confusion_{system}.csv", answers.benign, truth.labels, classes)
            _write_confusion(part / f"confusion_triggered_{system}.csv", answers.triggered, truth.behind, classes)
        curves = _snapshots(tests, models, figures["refine"], params.batch_size, compute)
        _write_csv(part / "snapshots.csv", ("epoch", *_CURVES), curves)
        both = answered["no_defense"], answered["refine"]
        draw_gallery(part / "gallery.png", tests, both, defense, params.gallery_images, compute)
        draw_features(part / "features.png", benign, attacked[1] if attacked else None, chosen, tests)
        write_json(metrics, figures)
    return figures


def _looks(
    tests: TestSets, truth: Truth, chosen: Diagnosed, defense: Refine, batch_size: int, compute: Compute
) -> tuple[Both, tuple[Both, Both] | None]:
    """What bare and defended classifier make of benign images, and of others without and with their trigger."""

    def both(images: Tensor) -> Both:
        return look(defense, images, batch_size, compute)

    benign = both(tests.clean.images[chosen.benign])
    if not len(chosen.triggered):
        return benign, None
    clean = tests.clean.images[truth.clean_rows[chosen.triggered]]
    return benign, (both(clean), both(tests.triggered.images[chosen.triggered]))


System = Callable[[Tensor], Tensor]


def bare(classifier: Classifier) -> System:
    """The classifier alone, with probabilities in place of logits."""
    return lambda pixels: classifier(pixels).float().softmax(dim=1)


def bare_answers(classifier: Classifier, tests: TestSets, batch_size: int, compute: Compute) -> Answers:
    """Answers of the classifier alone."""
    system = bare(classifier)
    benign, triggered = (probabilities(system, split, batch_size, compute) for split in (tests.clean, tests.triggered))
    return Answers(benign, triggered, triggered.argmax(dim=1))


def defended_answers(defense: Refine, tests: TestSets, batch_size: int, compute: Compute) -> Answers:
    """Answers of the defended classifier."""
    benign, triggered = (probabilities(defense, split, batch_size, compute) for split in (tests.clean, tests.triggered))
    unmapped = torch.argsort(defense.permutation.cpu())
    return Answers(benign, triggered, unmapped[triggered.argmax(dim=1)])


@torch.inference_mode()
def probabilities(system: System, split: Split, batch_size: int, compute: Compute) -> Tensor:
    """What a system says to all images of a split, in their order, float [N, K] on the CPU."""
    batches = in_batches(split.images, batch_size, compute.device)
    shown = progress(batches, "evaluate", -(-len(split.images) // batch_size), "batch")
    parts = [system(pixels).cpu() for pixels in shown]
    return torch.cat(parts) if parts else torch.zeros(0, len(split.manifest.classes))


def _write_confusion(path: Path, probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    predicted = probabilities.argmax(dim=1)
    rows = ((classes[true], classes[said]) for true, said in zip(labels.tolist(), predicted.tolist(), strict=True))
    _write_csv(path, ("actual", "predicted"), rows)


def _snapshots(
    tests: TestSets, models: tuple[Path, Path], final: dict[str, float], batch_size: int, compute: Compute
) -> Iterator[tuple[float | str, ...]]:
    """Each kept epoch, and benign accuracy and attack success rate of the defense after it, "" without an attack.

    Nothing is chosen by them.

    Args:
        final: figures of the finished defense, which is the last snapshot.
    """
    classifier_folder, refine_folder = models
    *earlier, last = read_card(refine_folder, refine.RefineCard).snapshots
    for snapshot in earlier:
        defense = refine.load(refine_folder, classifier_folder, snapshot.epoch).to(compute.device)
        figures = measure(defended_answers(defense, tests, batch_size, compute), tests.truth)
        yield snapshot.epoch, *(figures.get(name, "") for name in _CURVES)
    yield last.epoch, *(final.get(name, "") for name in _CURVES)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
