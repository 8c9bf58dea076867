"""What a defense does, for people who would rather look: transformed images, and maps of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from refine.defending.protocol.defense import Defense, NoDefense, Purifies
from refine.evaluation.feature_map import Legend, draw_maps
from refine.evaluation.metrics import Answers
from refine.evaluation.test_sets import TestSets, one_of_each
from refine.evaluation.wasserstein import Looks
from refine.models.device import Compute
from refine.pictures.grid import Caption, Grid, draw_grids, to_bytes
from refine.shards.reading.pixels import in_batches


class Mark(NamedTuple):
    """A sign that says how an answer is, and its color."""

    sign: str
    color: str


_RIGHT, _WRONG, _WANTED = Mark("✓", "#1a7f37"), Mark("✗", "#9a6700"), Mark("◎", "#c02020")
_KEY = {_RIGHT: "right", _WRONG: "wrong", _WANTED: "wrong, and what the attacker wants"}


@dataclass(frozen=True)
class Systems:
    """The bare and the defended classifier.

    Attributes:
        answered: what each of them answers to the test images, the bare one first.
        defense: of the defended one.
    """

    answered: Mapping[str, Answers]
    defense: Defense

    @property
    def titles(self) -> tuple[str, str]:
        """What they are called, in the same order."""
        return NoDefense.title, self.defense.title


@torch.inference_mode()
def draw_gallery(path: Path, tests: TestSets, systems: Systems, columns: int, compute: Compute) -> None:
    """Clean and triggered images, each as it is and, where the defense purifies, transformed, and the answers to it.

    A class a column where there are enough; clean images alone where there is no attack.

    Args:
        path: of the picture; a PDF lies beside it.
        tests: clean and triggered test images.
        systems: that answer.
        columns: at most.
        compute: device.
    """
    truth, classes = tests.truth, tests.clean.manifest.classes
    defense, answered = systems.defense, systems.answered.values()
    attacked = len(truth.given) > 0
    labels = truth.behind if attacked else truth.labels
    places = one_of_each(labels, columns)
    behind = truth.clean_rows[places] if attacked else places
    given = truth.given[places] if attacked else torch.full_like(places, -1)
    rows, captions = [], []

    def show(title: str, images: Tensor, answers: list[Tensor]) -> None:
        rows.append((title, images))
        if isinstance(defense, Purifies):
            (pixels,) = in_batches(images, len(images), compute.device)
            rows.append((f"{title}, transformed", to_bytes(defense.pictures(pixels)).cpu()))
        else:
            rows.append((f"{title}, as it is", images))
        for system, predicted in zip(systems.titles, answers, strict=True):
            captions.append((f"{system}:", _captions(predicted, labels[places], given, classes)))

    show("clean", tests.clean.images[behind], [answers.benign[behind] for answers in answered])
    if attacked:
        show("triggered", tests.triggered.images[places], [answers.triggered[places] for answers in answered])
    names = [classes[label] for label in labels[places].tolist()]
    key = "    ".join(f"{mark.sign} {meaning}" for mark, meaning in _KEY.items() if attacked or mark is not _WANTED)
    draw_grids(path, Grid(names, rows, captions, key), vector=True)


def _captions(predicted: Tensor, labels: Tensor, given: Tensor, classes: Sequence[str]) -> list[Caption]:
    """The answers, each with a sign that tells whether it is right, wrong, or wrong as the attacker wants."""
    marks = [
        _RIGHT if answer == label else _WANTED if answer == wanted else _WRONG
        for answer, label, wanted in zip(predicted.tolist(), labels.tolist(), given.tolist(), strict=True)
    ]
    return [
        Caption(f"{mark.sign} {classes[answer]}", mark.color)
        for mark, answer in zip(marks, predicted.tolist(), strict=True)
    ]


def draw_features(path: Path, looks: Looks, defense: str, tests: TestSets) -> None:
    """Maps of the features before and after a defense of this title (the idea of Figure 2 of the REFINE paper)."""
    benign, chosen = looks.benign, looks.chosen
    triggered = looks.attacked[1] if looks.attacked else None
    maps = []
    for system, side in ((NoDefense.title, "before"), (defense, "after")):
        own = getattr(benign, side).penultimate[: len(chosen.mapped_labels)]
        marked = getattr(triggered, side).penultimate[: len(chosen.triggered_labels)] if triggered else own[:0]
        maps.append((f"penultimate features, {system}", own, marked))
    targets = set(tests.truth.given.tolist())
    target = targets.pop() if len(targets) == 1 else None
    draw_maps(path, maps, Legend(tests.clean.manifest.classes, chosen.mapped_labels, chosen.triggered_labels, target))
