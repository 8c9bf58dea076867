"""The small models that the signs are calibrated on: which ones there are, and their parameters.

Two halves of 20 models with a backdoor and 20 without: four attacks, two data sets, all targets. One half sets the
thresholds, the other one measures how often they are right. No seed occurs twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from refine.core.errors import UserError
from refine_lab.runs.parameters import put, read_params

HALVES = ("set", "measured")
ATTACKS = ("badnets", "blended", "wanet", "sig")
PER_HALF = 10
"""Models of a data set in a half, with a backdoor and as many without."""
PRESETS = {"mnist5k": "presets/quick.yaml", "cifar10": "presets/cpu.yaml"}
CLEAN = "none"

_DIGITS: dict[str, Any] = {
    "download": {"source": "mnist5k", "samples_per_shard": 1000},
    "poison_dataset": {"held_out": 0.0},
    "train_backdoor": {
        "network": {"name": "resnet18", "width": 16},
        "recipe": {
            "epochs": 4,
            "batch_size": 64,
            "precision": "auto",
            "optimizer": {"name": "sgd", "lr": 0.1, "nesterov": True},
            "schedule": {"name": "one_cycle"},
            "augment": {"shift": 2},
        },
    },
}
_CIFAR10: dict[str, Any] = {
    "download": {"source": "cifar10", "samples_per_shard": 1000},
    "poison_dataset": {"held_out": 0.8},  # which leaves the attacker 10,000 images
    "train_backdoor": {
        "network": {"name": "airbench", "width": 24},
        "recipe": {
            "epochs": 8,
            "batch_size": 256,
            "precision": "auto",
            "optimizer": {"name": "sgd", "lr": 0.4, "momentum": 0.85, "nesterov": True, "weight_decay": 0.0013},
            "schedule": {"name": "one_cycle", "warmup": 0.23},
            "augment": {"shift": 2, "flip": 0.5},
            "label_smoothing": 0.2,
        },
    },
}
DATA = {"mnist5k": _DIGITS, "cifar10": _CIFAR10}
"""What differs from its preset, by data set."""
DEFENSE: dict[str, dict[str, Any]] = {
    "mnist5k": {"unlabeled_fraction": 0.5},
    "cifar10": {"unlabeled_fraction": 0.05, "encoder.batch_size": 256, "recipe.min_steps": 300},
}
"""What differs from its preset in `train_refine`, by dotted names: 2,000 images for the defender, and less work."""
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist5k", "sig"): {"rate": 0.8},
    ("mnist5k", "wanet"): {"rate": 0.2, "noise_ratio": 0.5, "strength": 1.0},
    ("cifar10", "badnets"): {"rate": 0.2},
    ("cifar10", "sig"): {"rate": 0.8},
    ("cifar10", "blended"): {"alpha": 0.2},
    ("cifar10", "wanet"): {"rate": 0.2, "noise_ratio": 0.5, "strength": 1.0},
}
"""Of attacks that few images and epochs would otherwise not be enough for."""
FIRST = 3
"""Seeds that are tried with these settings."""
STRONGER: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("mnist5k", "sig"): [{"amplitude": height, "test_amplitude": height} for height in (80.0, 160.0, 240.0)],
}
"""What is added to them for each seed after these, where a backdoor has not been learned yet."""
LEAST_ACCURACY = {"mnist5k": 0.9, "cifar10": 0.5}
LEAST_SUCCESS = 0.9


@dataclass(frozen=True)
class Model:
    """One model of the calibration.

    Attributes:
        half: which one it belongs to.
        data: name of the data source.
        attack: its name.
        target: class of the attack.
        seed: of poisoning and training.
    """

    half: str
    data: str
    attack: str
    target: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.half}-{self.data}-{self.attack}-s{self.seed}"

    def params(self, project: Path, attempt: int) -> dict[str, Any]:
        """A whole parameters file.

        Args:
            project: the checkout.
            attempt: counts from 0; each has another seed.
        """
        params = copy.deepcopy(read_params(project / PRESETS[self.data]))
        for section, changes in copy.deepcopy(DATA[self.data]).items():
            params[section].update(changes)
        for name, value in DEFENSE[self.data].items():
            put(params, f"train_refine.{name}", value)
        params["poison_dataset"]["attack"] = {"name": self.attack}
        if self.attack != CLEAN:
            own = dict(SETTINGS.get((self.data, self.attack), {}))
            if attempt >= FIRST:
                stronger = STRONGER.get((self.data, self.attack), [{}])
                own.update(stronger[min(attempt - FIRST, len(stronger) - 1)])
            params["attacks"] = {self.attack: {"target": self.target, **own}}
        for section in ("poison_dataset", "train_backdoor", "train_refine"):
            params[section]["seed"] = self.seed + 10_000 * attempt
        return params


def models() -> list[Model]:
    """All of them, so ordered that the first few are of all kinds."""
    made = []
    for place, half in enumerate(HALVES):
        for number in range(PER_HALF):
            for other, data in enumerate(DATA):
                attack = ATTACKS[(number + 2 * other + 2 * place) % len(ATTACKS)]
                seed = 1000 * (1 + place) + 100 * other + number
                made.append(Model(half, data, attack, number % 10, seed))
                made.append(Model(half, data, CLEAN, 0, seed + 50))
    return made


def chosen(patterns: Iterable[str]) -> list[Model]:
    """The models whose names match one of some patterns (`*`, `?`), all without a pattern.

    Raises:
        UserError: a pattern fits no model.
    """
    named = {model.name: model for model in models()}
    wanted: dict[str, Model] = {}
    for pattern in patterns:
        found = {name: model for name, model in named.items() if fnmatchcase(name, pattern)}
        if not found:
            raise UserError(
                f"no model of the calibration is called {pattern}; such names are {', '.join([*named][:3])}"
            )
        wanted |= found
    return list((wanted or named).values())
