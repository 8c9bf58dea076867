"""Galleries of a report: a user's images with what both models say to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refine.defending.protocol.defense import Defense, NoDefense, Purifies
from refine.evaluation.answers import probabilities
from refine.evaluation.test_sets import one_of_each
from refine.models.classifier import Classifier
from refine.models.device import Compute
from refine.pictures.grid import to_bytes
from refine.proof.page.content import Photo
from refine.proof.page.pictures import address_of
from refine.shards.reading.pixels import in_batches
from refine.shards.reading.reader import Split

_AT_ONCE = 64


@dataclass(frozen=True)
class Answered:
    """Images, and what a model says to them as it was delivered and defended.

    Attributes:
        images: uint8 [N, 3, side, side].
        delivered: probabilities, float32 [N, K].
        defended: likewise.
        classes: names, K.
    """

    images: Tensor
    delivered: Tensor
    defended: Tensor
    classes: Sequence[str]

    @property
    def changed(self) -> Tensor:
        """Rows of the images that get another class, int64; those first of which both models are surest."""
        rows = (self.delivered.argmax(dim=1) != self.defended.argmax(dim=1)).nonzero().flatten()
        sure = torch.minimum(self.delivered.amax(dim=1), self.defended.amax(dim=1))[rows]
        return rows[sure.argsort(descending=True, stable=True)]


def answered(
    images: Split, classifier: Classifier, defense: Defense, classes: Sequence[str], compute: Compute
) -> Answered:
    """Asks both models.

    Args:
        images: of the model's side.
        classifier: as delivered, on the device.
        defense: of it, on the device.
        classes: names.
        compute: device.
    """
    before, after = (probabilities(system, images, _AT_ONCE, compute) for system in (NoDefense(classifier), defense))
    return Answered(images.images, before, after, classes)


def typical(answers: Answered, count: int) -> Tensor:
    """Rows of images with the same class from both models, of as many classes as there are; int64 [at most count]."""
    same = (answers.delivered.argmax(dim=1) == answers.defended.argmax(dim=1)).nonzero().flatten()
    return same[one_of_each(answers.delivered[same].argmax(dim=1), count)]


@torch.inference_mode()
def photos(answers: Answered, rows: Tensor, defense: Defense, compute: Compute) -> list[Photo]:
    """Pictures of some images: as they are and, if the defense passes other ones to the classifier, those as well.

    Args:
        answers: of all images.
        rows: which images, int64.
        defense: on the device.
        compute: device.
    """
    if not len(rows):
        return []
    images = answers.images[rows]
    shown = [("your photo", images)]
    if isinstance(defense, Purifies):
        (pixels,) = in_batches(images, len(images), compute.device)
        shown.append(("what the model gets", to_bytes(defense.pictures(pixels)).cpu()))
    told = [("delivered", answers.delivered[rows]), ("defended", answers.defended[rows])]
    changed = (told[0][1].argmax(dim=1) != told[1][1].argmax(dim=1)).tolist()
    return [
        Photo(
            pictures=[(caption, address_of(pictures[place])) for caption, pictures in shown],
            lines=[f"{system}: {_answer(given[place], answers.classes)}" for system, given in told],
            changed=changed[place],
        )
        for place in range(len(rows))
    ]


def _answer(probabilities: Tensor, classes: Sequence[str]) -> str:
    best = int(probabilities.argmax())
    return f"{classes[best]}, {100 * float(probabilities[best]):.0f} %"
