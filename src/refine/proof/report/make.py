"""Making the report on a defended model: examining, testing, and telling it on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import remove, write_json
from refine.defending.loading import load
from refine.defending.protocol.defense import Defense
from refine.defenses.refine.training.params import TrainRefineParams
from refine.deployment import folder as deployed
from refine.deployment.defend import held_out
from refine.deployment.folder import Defended
from refine.deployment.inputs import read_files, unlabeled
from refine.deployment.labeled import Accuracy, Labeled, accuracies, labeled, refuse_shared
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.proof.images import some
from refine.proof.judging.examine import examine
from refine.proof.judging.params import SignsParams
from refine.proof.judging.thresholds import read_thresholds
from refine.proof.judging.verdict import SignsResult
from refine.proof.page.content import Block, Report, Sums
from refine.proof.page.pictures import is_photograph
from refine.proof.page.verify import sums_of
from refine.proof.page.write import write_page
from refine.proof.report import blocks, findings
from refine.proof.report.photos import answered, photos, typical
from refine.proof.stress.defender import refine_defender
from refine.proof.stress.params import StressParams
from refine.proof.stress.result import StressResult
from refine.proof.stress.stress import stress_test
from refine.shards.reading.reader import Split

PAGE, SIGNS, STRESS = "report.html", "signs.json", "stress.json"
"""Files in the folder of the defended model."""
_SHOWN = 12


@dataclass(frozen=True)
class Wanted:
    """Parts of a report that take time or that somebody may not want to show.

    Attributes:
        stress: the stress test, which takes several times as long as the defense.
        signs: of a backdoor in the delivered model.
        pictures: of the user.
        check: folder with labeled images in a folder for each class; None measures no accuracy.
    """

    stress: bool = True
    signs: bool = True
    pictures: bool = True
    check: Path | None = None


@dataclass(frozen=True)
class _Subject:
    """What a report is about: the folder, and what is in it, on the device."""

    folder: Path
    content: Defended
    classifier: Classifier
    card: ClassifierCard
    defense: Defense
    compute: Compute


@dataclass(frozen=True)
class _Found:
    """What was measured for a report; None where it was not wanted."""

    accuracy: Accuracy | None
    stress: StressResult | None
    signs: SignsResult | None


def make(folder: Path, files: Sequence[Path], wanted: Wanted, today: date, compute: Compute) -> Report:
    """Writes the page, and the results of the stress test and of the signs as JSON, into the folder.

    An interrupted stress test goes on after the last backdoor that was finished.

    Args:
        folder: of the defended model.
        files: the images that it was defended with.
        wanted: parts of the report.
        today: for the page.
        compute: device and threads.

    Raises:
        UserError: the folder is damaged, the images are others, there are too few for the stress test, or labeled
            ones do not fit or are also among them.
    """
    of = _opened(folder, compute)
    checked = labeled(wanted.check, of.card) if wanted.check else None
    sums = sums_of(folder, files, checked.files if checked else ())
    if sums.images != of.content.images.sha256:
        raise UserError(f"these are not the images that {folder} was defended with (sha256 differs); give those")
    accuracy = _accuracy(of, checked, files)
    held = held_out(len(files))
    rows = some(len(files), held, of.card.input_side)
    images = read_files(of.card, [files[row] for row in rows.tolist()])
    signs = stress = None
    if wanted.signs:
        names = [files[row].name for row in rows.tolist()]
        signs = examine((of.classifier, of.card), images, names, SignsParams(), read_thresholds(), compute, of.defense)
        write_json(folder / SIGNS, signs.model_dump())
    if wanted.stress:
        work = folder / ".stress"
        classifier = folder / deployed.CLASSIFIER
        given = TrainRefineParams.model_validate(of.content.settings)
        defender = refine_defender(given, compute, of.card if of.content.built_in else None)
        stress = stress_test(classifier, unlabeled(images, of.card), StressParams(), defender, compute, work)
        write_json(folder / STRESS, stress.model_dump())
        remove(work)
    galleries = _galleries(of, unlabeled(images[held[rows]], of.card), wanted.pictures)
    report = _told(of, today, _Found(accuracy, stress, signs), galleries, sums)
    write_page(folder / PAGE, report, is_photograph(of.card.input_side))
    return report


def _opened(folder: Path, compute: Compute) -> _Subject:
    content = deployed.read(folder)
    classifier, card = classifiers.load(folder / deployed.CLASSIFIER)
    defense = load(folder / deployed.DEFENSE, folder / deployed.CLASSIFIER)
    return _Subject(folder, content, classifier.to(compute.device), card, defense.to(compute.device), compute)


def _galleries(of: _Subject, held: Split, pictures: bool) -> list[Block]:
    answers = answered(held, of.classifier, of.defense, of.card.classes, of.compute)
    changed = answers.changed
    rows = (typical(answers, _SHOWN), changed[:_SHOWN]) if pictures else (changed[:0], changed[:0])
    usual, other = (photos(answers, each, of.defense, of.compute) for each in rows)
    return blocks.galleries(usual, other, len(changed), len(held.keys))


def _accuracy(of: _Subject, checked: Labeled | None, files: Sequence[Path]) -> Accuracy | None:
    if checked is None:
        return None
    refuse_shared(checked, files)
    return accuracies(of.folder, checked, of.compute)


def _told(of: _Subject, today: date, found: _Found, galleries: list[Block], sums: Sums) -> Report:
    agreement, stress, signs = (
        findings.of_agreement(of.content.agreement),
        findings.of_stress(found.stress),
        findings.of_signs(found.signs),
    )
    accuracy = [findings.of_accuracy(found.accuracy)] if found.accuracy else []
    tests = [blocks.of_stress(found.stress)] if found.stress else []
    tests += [blocks.of_signs(found.signs)] if found.signs else []
    return Report(
        title="Report on a defended image classifier",
        subtitle=f"{of.folder.resolve().name}, {today:%d %B %Y}",
        verdict=findings.verdict(findings.of_work(found.accuracy, of.content.agreement), stress, signs),
        findings=[*accuracy, agreement, stress, signs],
        blocks=[blocks.method(), blocks.done(of.content, of.card), *galleries, *tests, blocks.limits()],
        sums=sums,
    )
