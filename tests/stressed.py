"""A stress test that takes a moment: a tiny classifier, few images, one or two plants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
from refine.defenses.refine.training.train import train_refine
from refine.proof.stress.params import StressParams
from refine.proof.stress.stress import Defender
from refine.shards.reading.reader import Split, read_split
from support import synthetic, write_split

SIDE, CLASSES = 16, 3
PATCH = {"attack": "badnets", "settings": {"rate": 0.5, "patch_side": 8}}
RECIPE = {
    "epochs": 15,
    "min_steps": 0,
    "batch_size": 16,
    "batch_statistics": 0.0,  # the statistics of a random network are not worth much
    "optimizer": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0},
}


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
