"""Defending anybody's classifier with unlabeled images in one go: what `refine defend` does.

An interrupted run leaves `OUT.part` beside the folder that it was to write, with the images as shards and the
checkpoints of its training, and the same command goes on from there.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import new_folder, remove, sha256_of, write_json
from refine.core.progress import progress
from refine.core.registry import TRANSFORM, TRANSFORMS, part
from refine.core.strict import Strict
from refine.defending.loading import load
from refine.defending.protocol.defense import NoDefense
from refine.defenses.refine.training import train as refine
from refine.defenses.refine.training.params import TrainRefineParams
from refine.deployment import folder as defended
from refine.deployment import settings
from refine.deployment.folder import Agreement, Defended, Images, sum_of, sums_of
from refine.evaluation.answers import predictions
from refine.models import classifier as classifiers
from refine.models.card import NAME as CARD
from refine.models.card import WEIGHTS, Sha256
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.shards.format.manifest import Description
from refine.shards.reading.reader import read_split
from refine.shards.writer import Sample, write_shards
from refine.training.checkpoint import checkpoints, hold
from refine.training.training_set import open_training_set

log = logging.getLogger(__name__)

HELD_OUT = 0.1
MOST_HELD_OUT = 1000
_SEED = 16
_BEGUN = "begun.json"
_TRAIN, _TEST = "train", "held_out"
_PER_SHARD = 1000
_BYTES_PER_SHARD = 1 << 28
_AT_ONCE = 64


class _Begun(Strict):
    """What an unfinished run was given; another one cannot go on with it."""

    classifier_sha256: Sha256
    images_sha256: Sha256
    settings: dict[str, Any] | None


def defend(
    classifier_folder: Path, files: Sequence[Path], out: Path, params: TrainRefineParams | None, compute: Compute
) -> Defended:
    """Trains a REFINE defense for a classifier and writes the folder of the defended model.

    Args:
        classifier_folder: of anybody's classifier; it is copied.
        files: clean images of the kind that the classifier is made for; they need no labels. A tenth of them, at most a
            thousand, is held out, and answers to them are compared in the end.
        out: the new folder, see `deployment.folder`; one that was made of the same is left as it is.
        params: how it is trained; None takes `deployment.settings.built_in`.
        compute: device and threads.

    Returns:
        The content of its `defended.json`.

    Raises:
        UserError: the folder is there already and something else, the classifier is damaged, an image cannot be read,
            there are too few of them, or an unfinished run of other arguments is in the way.
        KeyboardInterrupt: with a sentence that tells how to go on.
    """
    values = params.model_dump() if params else None
    if os.path.lexists(out):
        return _made_before(out, classifier_folder, files, values)
    if len(files) < 2:
        raise UserError("a single image is too little to train a defense with; give a thousand or more")
    _, card = classifiers.load(classifier_folder)
    work = out.with_name(f"{out.name}.part")
    try:
        images = _sum(files)
        _begin(work, _Begun(classifier_sha256=card.weights_sha256, images_sha256=images, settings=values))
        with _held(work):
            if not (work / _TRAIN).is_dir():
                _write(files, card, work)
            return _trained(classifier_folder, card, work, out, params, images, compute)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted, and {out} was not written; type the same command again to go on"
        ) from None


def _sum(files: Sequence[Path]) -> str:
    return sum_of([sha256_of(file) for file in progress(files, "look at images", len(files), "image")])


def _made_before(out: Path, classifier: Path, files: Sequence[Path], values: dict[str, Any] | None) -> Defended:
    """What is there already, if the same command made it: a report, which comes after it, may have been interrupted.

    Raises:
        UserError: it is something else.
    """
    remedy = "give another folder, or remove it"
    if not defended.is_defended(out):
        raise UserError(f"{out} already exists; {remedy}")
    content = defended.read(out)
    other = _other(
        content.classifier == sums_of(classifier),
        content.images.sha256 == _sum(files),
        content.built_in if values is None else values == content.settings and not content.built_in,
    )
    if other:
        raise UserError(f"{out} already exists, made of {other}; {remedy}")
    log.info("%s is there already", out)
    return content


def _other(same_classifier: bool, same_images: bool, same_settings: bool) -> str:
    """What differs, in words; empty if nothing does."""
    same = {"another classifier": same_classifier, "other images": same_images, "other settings": same_settings}
    return " and ".join(kind for kind, is_same in same.items() if not is_same)


def _begin(work: Path, begun: _Begun) -> None:
    """Makes the folder of an unfinished run, or sees that the one that is there was given the same.

    Raises:
        UserError: it was given something else.
    """
    remedy = f"remove {work}, or give another folder"
    if not (work / _BEGUN).is_file():
        if work.exists() and any(work.iterdir()):
            raise UserError(f"{work} is in the way; {remedy}")
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / _BEGUN, begun.model_dump())
        return
    before = read_document(work / _BEGUN, _Begun, remedy)
    if other := _other(*(getattr(before, name) == getattr(begun, name) for name in _Begun.model_fields)):
        raise UserError(f"{work} is left from an unfinished run with {other}; {remedy}")
    log.info("going on with %s", work)


@contextmanager
def _held(work: Path) -> Iterator[None]:
    """Holds the folder of an unfinished run, and removes it when the run has ended.

    It stays where the run was interrupted or killed. An error that the user can mend needs other arguments, which
    cannot go on with it.
    """
    with hold(work) as lock:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        except UserError:
            remove(work)
            raise
        remove(work)


def _write(files: Sequence[Path], card: ClassifierCard, work: Path) -> None:
    """Writes images as shards in the input size of a classifier: those to train on, and those that are held out."""
    apart = held_out(len(files)).tolist()
    description = Description(
        source="images",
        classes=[],
        labeled=False,
        side=card.input_side,
        mean=card.normalization.mean,
        std=card.normalization.std,
        samples_per_shard=max(1, min(_PER_SHARD, _BYTES_PER_SHARD // (3 * card.input_side**2))),
    )
    for name, wanted in ((_TEST, True), (_TRAIN, False)):
        chosen = [file for file, held in zip(files, apart, strict=True) if held == wanted]
        with new_folder(work / name) as folder:
            write_shards(folder, _samples(chosen, card), description)


def _samples(files: Sequence[Path], card: ClassifierCard) -> Iterator[Sample]:
    for key, file in enumerate(progress(files, "read images", len(files), "image")):
        yield Sample(key, card.read_image(file), 0, {})


def held_out(count: int) -> Tensor:
    """Which of so many images, at least two, are held out, bool [count]; the same ones each time."""
    chosen = torch.zeros(count, dtype=torch.bool)
    number = min(max(round(HELD_OUT * count), 1), MOST_HELD_OUT)
    chosen[torch.randperm(count, generator=Generator().manual_seed(_SEED))[:number]] = True
    return chosen


def _trained(
    classifier_folder: Path,
    card: ClassifierCard,
    work: Path,
    out: Path,
    given: TrainRefineParams | None,
    images_sha256: str,
    compute: Compute,
) -> Defended:
    classifier = classifiers.load(classifier_folder)[0].to(compute.device)
    images, manifest = open_training_set(work / _TRAIN, (), compute)
    look = settings.look(classifier, images, compute)
    params = given or settings.built_in(card, manifest.samples, look.mirrors)
    part(TRANSFORMS, params.transform.name, TRANSFORM)  # before `checkpoints`, whose key covers the code that is loaded
    inputs = [work / _TRAIN, *(classifier_folder / name for name in (CARD, WEIGHTS))]
    values, precision = refine.resolved(params, compute), compute.precision(params.recipe.precision)
    with (
        new_folder(out) as partial,
        checkpoints(work / "checkpoints", "train-refine", values, precision, inputs, compute) as kept,
    ):
        own = partial / defended.CLASSIFIER
        own.mkdir()
        for name in (CARD, WEIGHTS):
            shutil.copyfile(classifier_folder / name, own / name)
        refine.train_refine(params, images, own, compute, partial / defended.DEFENSE, kept)
        agreement = _agreement(partial, classifier, work / _TEST, compute)
        content = Defended(
            classifier=sums_of(own),
            defense=sums_of(partial / defended.DEFENSE),
            method="refine",
            settings=params.model_dump(),
            built_in=given is None,
            images=Images(
                count=manifest.samples + agreement.images,
                sha256=images_sha256,
                held_out=agreement.images,
                classes=look.classes,
            ),
            agreement=agreement,
            versions={"refine": version("refine"), "torch": torch.__version__},
        )
        write_json(partial / defended.NAME, content.model_dump())
    return content


def _agreement(folder: Path, classifier: Classifier, images: Path, compute: Compute) -> Agreement:
    """How often the new defended model answers as the classifier does."""
    defense = load(folder / defended.DEFENSE, folder / defended.CLASSIFIER).to(compute.device)
    held = read_split(images, only_images=True)
    before, after = (predictions(system, held, _AT_ONCE, compute) for system in (NoDefense(classifier), defense))
    return Agreement(images=len(held.keys), same=int((before == after).sum()))
