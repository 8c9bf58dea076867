"""Defenses to evaluate: REFINE, and others of a few lines, one for each thing that a defense may not do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from refine.defending import loading
from refine.defending.protocol.defense import Defense
from refine.defenses.refine import defense as refine
from refine.defenses.refine.card import InputSpace
from refine.evaluation.evaluate import Measured, Models, Outputs, evaluate
from refine.evaluation.params import EvaluateParams
from refine.evaluation.test_sets import TestSets
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.models.device import to_float32
from tiny import CPU, Poisoned, classifier_folder, defense_folder


class Mirrored(Defense):
    """Adds up the answers to an image and to its mirror image: nothing is transformed for good, no label is mapped."""

    title = "Mirror"
    regime = "none"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pixels) + self.classifier(pixels.flip(3))
        return logits


class Negative(Defense):
    """Shows the classifier the negative of an image: it purifies, and maps no label."""

    title = "Negative"
    regime = "none"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier.network(self.network_inputs(self.transformed(pixels)))
        return to_float32(logits)

    def transformed(self, pixels: Tensor) -> Tensor:
        """See `Purifies`."""
        return 1 - pixels

    def network_inputs(self, transformed: Tensor) -> Tensor:
        """See `Purifies`."""
        return self.classifier.normalize(transformed)

    def pictures(self, pixels: Tensor) -> Tensor:
        """See `Purifies`."""
        return self.transformed(pixels)


PURIFY = ["pixel", "normalized_clamp01", "negative"]
ALL = [*PURIFY, "mirror"]
"""What `system` makes: REFINE in both input spaces, and the others."""


@dataclass(frozen=True)
class System:
    """A defense that can be evaluated.

    Attributes:
        models: folders of its classifier and of itself; the latter is missing unless it is REFINE.
        defense: as it is loaded.
    """

    models: Models
    defense: Defense


def system(kind: str, folder: Path, classes: int) -> System:
    """A random classifier's folder, and one of `ALL` in front of it."""
    classifier_folder(folder / "classifier", classes)
    if kind in ("pixel", "normalized_clamp01"):
        space: InputSpace = "pixel" if kind == "pixel" else "normalized_clamp01"
        defense_folder(folder / "refine", folder / "classifier", classes, space)
        return System(
            Models(folder / "classifier", folder / "refine", "refine"),
            refine.load(folder / "refine", folder / "classifier"),
        )
    made = {"negative": Negative, "mirror": Mirrored}[kind](classifiers.load(folder / "classifier")[0])
    return System(Models(folder / "classifier", folder / kind, kind), made.eval())


def evaluated(of: System, data: Poisoned, folder: Path, *, bare: bool = True, **params: Any) -> Measured:
    """Evaluates a system; the files are `NAME.json`, `diagnostics.json` and those of `plots`."""
    tests = TestSets(data.test, data.triggered_test)
    outputs = Outputs(folder, folder / "diagnostics.json", folder / "plots", bare)
    with pytest.MonkeyPatch.context() as patched:
        if of.models.name != "refine":
            patched.setattr(loading, "load", lambda *_: of.defense)
            patched.setattr(loading, "snapshots", lambda _: [])
            patched.setattr(loading, "parts", lambda *_: {})
        return evaluate(EvaluateParams.model_validate(params), tests, of.models, CPU, outputs)
