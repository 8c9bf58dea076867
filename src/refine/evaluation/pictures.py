"""What a defence does, for people who would rather look: transformed images, and maps of the features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from refine.data.pixels import in_batches
from refine.defenses.refine import Refine
from refine.evaluation.held_out import Diagnosed, HeldOut, one_of_each
from refine.evaluation.metrics import Truth
from refine.evaluation.wasserstein import Both
from refine.models.device import Compute
from refine.pictures.grid import Grid, draw_grids, to_bytes
from refine.pictures.map import draw_maps


@torch.inference_mode()
def draw_gallery(path: Path, tests: HeldOut, truth: Truth, defence: Refine, columns: int, compute: Compute) -> None:
    """Clean, triggered and transformed images, a class a column where there are enough; clean ones without attack."""
    attacked = len(truth.given) > 0
    labels = truth.labels[truth.clean_rows] if attacked else truth.labels
    places = one_of_each(labels, columns)
    clean = tests.clean.images[truth.clean_rows[places] if attacked else places]
    names = [tests.clean.manifest.classes[label] for label in labels[places].tolist()]

    def transformed(images: Tensor) -> Tensor:
        (pixels,) = in_batches(images, len(images), compute.device)
        return to_bytes(defence.pictures(pixels)).cpu()

    rows = [("clean", clean), ("transformed", transformed(clean))]
    if attacked:
        triggered = tests.triggered.images[places]
        rows += [("triggered", triggered), ("transformed", transformed(triggered))]
    draw_grids(path, Grid(names, rows))


def draw_features(path: Path, benign: Both, triggered: Both | None, chosen: Diagnosed, classes: Sequence[str]) -> None:
    """Maps of the features before and after the defence (the idea of the paper's Figure 2)."""
    labels = chosen.mapped_labels, chosen.triggered_labels
    maps = []
    for title, system in (("features, no defence", "before"), ("features, REFINE", "after")):
        own = getattr(benign, system).penultimate[: len(labels[0])]
        marked = getattr(triggered, system).penultimate[: len(labels[1])] if triggered else own[:0]
        maps.append((title, own, marked))
    draw_maps(path, maps, labels, classes)
