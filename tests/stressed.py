"""A stress test that takes a moment: a tiny classifier, few images, one or two plants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.optim import SGD

import tiny
from refine.defenses.refine.training.train import train_refine
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.proof.stress.params import StressParams
from refine.proof.stress.stress import Defender
from refine.shards.reading.reader import Split, read_split
from support import synthetic, write_split

SIDE, CLASSES = 16, 3
PATCH = {"attack": "badnets", "settings": {"rate": 0.5, "patch_side": 8}}
RECIPE = {
    "epochs": 15,
    "min_steps": 0,
    "augment": {},
    "batch_size": 16,
    "batch_statistics": 0.0,  # a few steps are too few to follow them
    "optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 0.0},
}


def model(folder: Path | None = None) -> Classifier:
    """A tiny classifier that was trained for a moment, so that it is sure of its answers; written into a folder."""
    torch.manual_seed(0)
    made = classifiers.like(tiny.classifier_card()).train()
    optimizer = SGD(made.parameters(), lr=0.05, momentum=0.9)
    pixels, labels = synthetic(48)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(made(pixels / 255), labels).backward()
        optimizer.step()
    if folder:
        folder.mkdir(parents=True)
        classifiers.save(folder, made, tiny.classifier_card())
    return classifiers.freeze(made)


def params(**changes: Any) -> StressParams:
    """One patch, planted quickly; parts of 40, 40 and 40 of 120 images."""
    base = {
        "plants": {"patch": PATCH},
        "parts": {"planting": 0.33334, "defending": 0.33334, "measuring": 0.33332, "least": 20},
        "recipe": RECIPE,
        "least_asr": 0.8,
        "most_disagreement": 0.2,
    }
    return StressParams.model_validate({**base, **changes})


def images(folder: Path, count: int = 120, side: int = SIDE) -> Split:
    """Images of three classes with their true labels."""
    write_split(folder, *synthetic(count, side, CLASSES), classes=CLASSES)
    return read_split(folder)


def defender(noted: list[Path] | None = None) -> Defender:
    """REFINE for a moment; notes the folders of the classifiers that it was trained for."""
    settings = tiny.refine_params()

    def train(of: Any, classifier: Path, folder: Path) -> None:
        if noted is not None:
            noted.append(classifier)
        train_refine(settings, of, classifier, tiny.CPU, folder)

    return Defender("refine", settings.model_dump(), 8, train)
