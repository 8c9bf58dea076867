"""Settings with which a REFINE defense is trained for anybody's classifier, where nobody gave other ones.

They are those of `presets/cpu.yaml`, which were chosen on CIFAR-10, and adapt to what the classifier takes:

- The encoder is trained by AdamW, which suits networks of all kinds; the preset's SGD suits its own.
- Mirrored images are only trained on where the classifier gives them the same answers; for digits or traffic signs it
  does not.
- The warp grows with the image, up to 16 pixels: a pixel of 32 is seven of 224.
- Batches are smaller where images are larger, so that a step takes about as much memory, and where there are few, as
  the number of steps does not shrink with theirs; the learning rate shrinks with its square root.
- A classifier without a linear last layer gets the U-Net, whose encoder needs no features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from refine.defenses.refine.training.params import MOST_SHIFT, TrainRefineParams
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.shards.reading.pixels import to_pixels
from refine.training.training_set import TrainingSet, in_order

_SIDE = 64
"""Up to this side, batches are those of 32 pixels."""
_LEAST_BATCH = 32
_SIDE_OF_A_PIXEL = 32
"""Of images whose places may move by a pixel."""
STEPS = {"encoder": 600, "recipe": 600}
"""Least number of each training: few images are gone over more often."""
_BATCHES = 8
"""An epoch has at least so many, where there are images enough for the smallest ones."""
_MIRRORED = 0.9
"""Share of equal answers from which mirrored images are images of the same thing."""
_RARE = 0.1
"""Share of the even share of a class, below which images of it are likely to be mistakes of the classifier."""
_LOOKED_AT = 1000
_AT_ONCE = 64


def built_in(card: ClassifierCard, images: int, mirrors: bool) -> TrainRefineParams:
    """The settings for a classifier.

    Args:
        card: of the classifier.
        images: number of those to train on.
        mirrors: whether mirrored images are to be trained on.
    """
    fit = _fit(card, images)
    augment = {"shift": max(1, card.input_side // 16), "flip": 0.5 if mirrors else 0.0}
    encoder = {
        "learns": "features",
        "random_patterns": 0.3,
        "universal_warp": min(card.input_side / _SIDE_OF_A_PIXEL, MOST_SHIFT),
        "precise_statistics": True,
        "epochs": 6,
        "min_steps": STEPS["encoder"],
        "batch_size": fit["encoder"].batch_size,
        "precision": "auto",
        "frozen": True,
        "optimizer": {"name": "adamw", "lr": fit["encoder"].lr, "weight_decay": 0.01},
        "schedule": {"name": "one_cycle", "warmup": 0.23},
        "augment": augment,
    }
    recipe = {
        "epochs": 2,
        "min_steps": STEPS["recipe"],
        "batch_size": fit["recipe"].batch_size,
        "precision": "auto",
        "optimizer": {"name": "adamw", "lr": fit["recipe"].lr, "weight_decay": 0.01},
        "schedule": {"name": "one_cycle"},
        "augment": augment,
    }
    content: dict[str, Any] = {
        "seed": 1,
        "transform": {
            "name": "encoder_decoder",
            "start": "from_classifier",
            "replaced": [0.03, 0.09, 0.27],
            "replaced_in_head": 0.1,
            "channels": 128,
        },
        "input_space": "pixel",
        "initial_output": 0.5,
        "initial_contrast": 0.1,
        "pseudo_labels": "once",
        "snapshots": 1,
        "loss": {"utility": "categorical", "supcon_weight": 0.0},
        "encoder": encoder,
        "recipe": recipe,
    }
    if not _has_head(card):
        content |= {"transform": {"name": "unet", "first_channels": 24}}
        encoder |= {"learns": "probabilities"}
    return TrainRefineParams.model_validate(content)


def refitted(params: TrainRefineParams, card: ClassifierCard, images: int) -> TrainRefineParams:
    """Settings that were built in once, perhaps by another version, for another number of images.

    Args:
        params: to take; batches and learning rates apart.
        card: of the classifier.
        images: number of those to train on.
    """
    content = params.model_dump()
    for name, fit in _fit(card, images).items():
        if content[name]:
            content[name]["batch_size"] = fit.batch_size
            content[name]["optimizer"]["lr"] = fit.lr
    return TrainRefineParams.model_validate(content)


class _Fit(NamedTuple):
    batch_size: int
    lr: float


def _fit(card: ClassifierCard, images: int) -> dict[str, _Fit]:
    """What depends on the size and the number of the images, of the trainings by the names of their parameters."""
    scale = min(1.0, (_SIDE / card.input_side) ** 2)
    most = min(max(images // _BATCHES, _LEAST_BATCH), images)
    fits = {}
    for name, size, lr in (("encoder", 512, 0.002), ("recipe", 128, 0.003)):
        batch_size = min(max(round(size * scale), _LEAST_BATCH), most)
        fits[name] = _Fit(batch_size, lr * (batch_size / size) ** 0.5)
    return fits


def _has_head(card: ClassifierCard) -> bool:
    with torch.device("meta"):
        return isinstance(getattr(classifiers.like(card).network, "head", None), nn.Linear)


@dataclass(frozen=True)
class Look:
    """What a classifier says of the images to train on.

    Attributes:
        classes: that it answers often enough not to be mistakes: a tenth of an even share, and once at least.
        mirrors: whether it answers mirrored images as it does the images themselves.
    """

    classes: int
    mirrors: bool


@torch.inference_mode()
def look(classifier: Classifier, images: TrainingSet, compute: Compute) -> Look:
    """Asks a classifier.

    Args:
        classifier: on the device.
        images: clean; only the first thousand are mirrored.
        compute: of the device.
    """
    same = mirrored = 0
    said = []
    for columns in in_order(images, _AT_ONCE, compute.device, "ask the classifier"):
        pixels = to_pixels(columns[0])
        logits = classifier(pixels)
        labels = logits.argmax(dim=1)
        said.append(labels.cpu())
        if mirrored < _LOOKED_AT:
            same += int((classifier(pixels.flip(-1)).argmax(dim=1) == labels).sum())
            mirrored += len(pixels)
    counts = torch.cat(said).bincount(minlength=logits.shape[1])
    least = max(1.0, _RARE * counts.sum().item() / len(counts))
    return Look(int((counts >= least).sum()), same >= _MIRRORED * mirrored)
