"""Inverting triggers, and unlearning those that stand out."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from refine.core.bounds import MOST_CLASSES
from refine.core.progress import progress
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.inversion import Inverted, anomaly, invert
from refine.defending.retraining import Retraining, retrained, trainable, unchanged
from refine.defending.train import Task
from refine.defenses.nc.defense import Params
from refine.models import classifier as classifiers
from refine.shards.reading.pixels import to_pixels
from refine.training.batches import Batch
from refine.training.training_set import TrainingSet, in_order

log = logging.getLogger(__name__)

CLASSES = "classes.csv"
"""The patch of each class: share of the image that it covers, its index, and whether it was unlearned."""
_AT_ONCE = 1024


class Stamped(Retraining):
    """Fine-tuning on images of which a share has a patch and its true label.

    Args:
        triggers: patches, each with the same chance.
        share: of the images.
        of: arguments of `Retraining`.
    """

    def __init__(self, triggers: list[Inverted], share: float, *of: Any) -> None:
        super().__init__(*of)
        self.share = share
        self.masks = torch.stack([each.mask for each in triggers]).to(self.compute.device)
        self.patterns = torch.stack([each.pattern for each in triggers]).to(self.compute.device)

    def augmented(self, batch: Batch) -> Tensor:
        """Augmented images float [B, 3, H, W], some with a patch."""
        pixels = super().augmented(batch)
        device, count = self.compute.device, len(pixels)
        chosen = torch.rand(count, generator=self.generator, device=device) < self.share
        which = torch.randint(len(self.masks), (count,), generator=self.generator, device=device)
        masks = self.masks[which] * chosen.view(-1, 1, 1, 1)
        return pixels * (1 - masks) + masks * self.patterns[which]


def inverted(task: Task, images: TrainingSet, params: Params) -> dict[int, Inverted]:
    """The smallest patch that leads to each class."""
    compute = task.compute
    network = classifiers.folded(task.classifier).to(compute.device)
    columns = [each[0] for each in in_order(images, _AT_ONCE, compute.device, "images")]
    pixels = to_pixels(torch.cat(columns))
    with torch.no_grad():
        answers = torch.cat([network(some).argmax(dim=1) for some in torch.split(pixels, _AT_ONCE)])

    def logits(batch: Tensor) -> Tensor:
        with compute.autocast(compute.precision(params.recipe.precision)):
            found: Tensor = network(batch)
        return found

    triggers = {}
    for target in progress(range(len(task.card.classes)), "invert triggers", unit="class"):
        others = pixels[answers != target]
        generator = Generator().manual_seed(task.seed * MOST_CLASSES + target)
        triggers[target] = invert(logits, others if len(others) else pixels, target, params.search, generator)
    return triggers


def suspicious(triggers: dict[int, Inverted], most: float) -> tuple[list[int], dict[int, float]]:
    """Classes whose patch was found and is far smaller than the others', and the index of each class."""
    indices = anomaly({target: each.area for target, each in triggers.items()}, [*triggers])
    return [target for target, index in indices.items() if index > most and triggers[target].succeeded], indices


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    images = labeled_images(task)
    triggers = inverted(task, images, params)
    targets, indices = suspicious(triggers, params.most_index)
    _write(task.folder / CLASSES, task.card.classes, triggers, indices, targets)
    if not targets:
        return unchanged(task, f"no class has an anomaly index above {params.most_index:g}")
    log.info("unlearn the patch of %s", ", ".join(task.card.classes[target] for target in targets))
    of = trainable(task), images, params.recipe, cross_entropy, task.compute, params.batch_statistics
    return retrained(task, Stamped([triggers[target] for target in targets], params.share, *of))


def _write(
    path: Path, classes: list[str], triggers: dict[int, Inverted], indices: dict[int, float], targets: list[int]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "class", "area", "index", "unlearned"])
        for target, each in triggers.items():
            told = str(target in targets).lower()
            writer.writerow([target, classes[target], f"{each.area:.6g}", f"{indices[target]:.6g}", told])
