"""Examines a classifier for signs of a backdoor: all signs of `refine.proof.signs`, held against their thresholds."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.core.progress import progress
from refine.core.registry import component
from refine.defending.protocol.defense import Defense, NoDefense
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.proof.judging.params import SIGNS, SignsParams, settings
from refine.proof.judging.sign import Finding, Subject
from refine.proof.judging.thresholds import Thresholds
from refine.proof.judging.verdict import SignsResult, judged
from refine.shards.reading.pixels import in_batches

log = logging.getLogger(__name__)


def examine(
    classifier: tuple[Classifier, ClassifierCard],
    images: Tensor,
    image_names: Sequence[str],
    params: SignsParams,
    thresholds: Thresholds,
    compute: Compute,
    defended: Defense | None = None,
) -> SignsResult:
    """Examines a classifier with images of its user, which need no labels.

    Args:
        classifier: to examine, and its card, as `models.classifier.load` gives them.
        images: uint8 [N, 3, H, W], RGB, of the classifier's side, on the CPU.
        image_names: of the N images.
        params: seed, bounds, and settings of the signs.
        thresholds: with which scores are compared.
        compute: device and threads.
        defended: the classifier under a defense, in eval mode.

    Raises:
        UserError: there is no image, or settings are wrong.
    """
    of, card = classifier
    return result(
        subject(of, card, images, image_names, params, compute, defended), card, len(images), params, thresholds
    )


def subject(
    classifier: Classifier,
    card: ClassifierCard,
    images: Tensor,
    image_names: Sequence[str],
    params: SignsParams,
    compute: Compute,
    defended: Defense | None = None,
) -> Subject:
    """What the signs are given; see `examine`."""
    if not len(images):
        raise UserError("there are no images; give a folder with some")
    rows = torch.randperm(len(images), generator=Generator().manual_seed(params.seed))[: params.images].sort().values
    some = images[rows]
    of = classifiers.freeze(classifier.to(compute.device).to(memory_format=torch.channels_last))
    precision = compute.precision(params.precision)
    return Subject(
        classifier=of,
        classes=card.classes,
        images=some,
        names=[image_names[row] for row in rows.tolist()],
        probabilities=_answers(NoDefense(of).eval(), some, params, compute, precision),
        compute=compute,
        precision=precision,
        defended_probabilities=None
        if defended is None
        else _answers(defended.to(compute.device), some, params, compute, precision),
    )


def found(name: str, of: Subject, params: SignsParams) -> Finding:
    """What one sign finds."""
    started = time.monotonic()
    finding: Finding = component(SIGNS, name, "signs").look(of, settings(params)[name], params.seed)
    log.info("%s: %.0f s", name, time.monotonic() - started)
    return finding


def result(of: Subject, card: ClassifierCard, given: int, params: SignsParams, thresholds: Thresholds) -> SignsResult:
    """What all signs say.

    Args:
        of: what is examined.
        card: of the classifier.
        given: images that there were.
        params: as for `examine`.
        thresholds: with which scores are compared.
    """
    signs = []
    for name, own in settings(params).items():
        module = component(SIGNS, name, "signs")
        finding = found(name, of, params)
        signs.append(judged(name, module.TITLE, module.MEANING, finding, own, thresholds.signs.get(name)))
    return SignsResult(
        model_sha256=card.weights_sha256,
        images=len(of.images),
        images_given=given,
        seed=params.seed,
        precision=of.precision,
        calibrated_on=thresholds.calibrated_on,
        signs=signs,
    )


@torch.no_grad()
def _answers(system: Defense, images: Tensor, params: SignsParams, compute: Compute, precision: str) -> Tensor:
    """Probabilities, float32 [N, K] on the CPU."""
    batches = in_batches(images, params.batch_size, compute.device)
    shown = progress(batches, "ask the model", -(-len(images) // params.batch_size), "batch")
    with compute.autocast(precision):
        return torch.cat([system.probabilities(pixels).float().cpu() for pixels in shown])
