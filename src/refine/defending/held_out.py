"""A part of the labeled images that a defender keeps to choose a setting with, so that no test image is asked."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.defending.share import chosen
from refine.models.classifier import Classifier
from refine.models.device import Compute
from refine.shards.reading.pixels import to_pixels
from refine.training.training_set import TrainingSet, in_order

_AT_ONCE = 256


def held_out(images: TrainingSet, share: float, seed: int, name: str) -> Tensor:
    """Which images are held out, bool [N].

    Args:
        images: all that the defender has.
        share: of them that is held out.
        seed: of the draw.
        name: the parameter that holds the share, for the error message.

    Raises:
        UserError: it is none of them or all.
    """
    count = sum(images.sizes)
    held = chosen(count, share, Generator().manual_seed(seed), name)
    if held.all():
        raise UserError(f"{name} {share} of {count} images is all of them; lower it")
    return held


@torch.inference_mode()
def accuracy(classifier: Classifier, images: TrainingSet, compute: Compute) -> float:
    """Share of labeled images that a classifier is right about.

    Args:
        classifier: in eval mode, on the device.
        images: with their label as only field.
        compute: of the device.
    """
    right = seen = 0
    for pixels, labels in in_order(images, _AT_ONCE, compute.device, "held-out accuracy"):
        right += int((classifier(to_pixels(pixels)).argmax(dim=1) == labels).sum())
        seen += len(labels)
    return right / seen
