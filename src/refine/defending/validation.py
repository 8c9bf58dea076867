"""The part of the labeled images that a defender chooses a setting with, so that no test image is asked."""

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


def split_off(images: TrainingSet, share: float, seed: int, name: str) -> Tensor:
    """Which images are for validation, bool [N].

    Args:
        images: all that the defender has.
        share: of them that is for validation.
        seed: of the draw.
        name: the parameter that holds the share, for the error message.

    Raises:
        UserError: it is none of them or all.
    """
    count = sum(images.sizes)
    some = chosen(count, share, Generator().manual_seed(seed), name)
    if some.all():
        raise UserError(f"{name} {share} of {count} images is all of them; lower it")
    return some


@torch.inference_mode()
def accuracy(classifier: Classifier, images: TrainingSet, compute: Compute) -> float:
    """Share of labeled images that a classifier is right about.

    Args:
        classifier: in eval mode, on the device.
        images: with their label as only field.
        compute: of the device.
    """
    right = seen = 0
    for pixels, labels in in_order(images, _AT_ONCE, compute.device, "validate"):
        right += int((classifier(to_pixels(pixels)).argmax(dim=1) == labels).sum())
        seen += len(labels)
    return right / seen
