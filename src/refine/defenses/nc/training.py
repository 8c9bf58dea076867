"""Inverting triggers, and unlearning those that stand out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from refine.core.bounds import MOST_CLASSES
from refine.core.files import write_csv
from refine.core.progress import progress
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.inversion import LEAST_CLASSES, Inverted, anomaly, invert
from refine.defending.retraining import Retraining, retrained, trainable, unchanged
from refine.defending.train import Task
from refine.defenses.nc.defense import Params
from refine.models import classifier as classifiers
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.tensors import save_tensors
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
    some = torch.randperm(sum(images.sizes), generator=Generator().manual_seed(task.seed)) < params.images
    columns = [each[0] for each in in_order(images.subset(some), _AT_ONCE, compute.device, "images")]
    pixels = to_pixels(torch.cat(columns))
    with torch.no_grad():
        answers = torch.cat([network(part).argmax(dim=1) for part in torch.split(pixels, _AT_ONCE)])

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


def _kept(task: Task, invert_all: Callable[[], dict[int, Inverted]]) -> dict[int, Inverted]:
    """The triggers of a stopped run, which its epochs were trained with, or new ones."""
    place = task.checkpoints.part("triggers").folder / "triggers.safetensors" if task.checkpoints else None
    if place is not None and place.exists():
        saved = load_file(place)
        return {
            target: Inverted(area, least, objective, bool(succeeded), mask, pattern)
            for target, ((area, least, objective, succeeded), mask, pattern) in enumerate(
                zip(saved["figures"].tolist(), saved["masks"], saved["patterns"], strict=True)
            )
        }
    triggers = invert_all()
    if place is not None:
        every = [triggers[target] for target in sorted(triggers)]
        figures = [[each.area, each.least, each.objective, float(each.succeeded)] for each in every]
        tensors = {
            "figures": torch.tensor(figures, dtype=torch.float64),
            "masks": torch.stack([each.mask for each in every]),
            "patterns": torch.stack([each.pattern for each in every]),
        }
        save_tensors(place, tensors)
    return triggers


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    images = labeled_images(task)
    if len(task.card.classes) < LEAST_CLASSES:
        write_csv(task.folder / CLASSES, ("label", "class", "area", "index", "unlearned"), [])
        return unchanged(task, f"{len(task.card.classes)} classes are too few to compare")
    triggers = _kept(task, lambda: inverted(task, images, params))
    targets, indices = suspicious(triggers, params.most_index)
    names = task.card.classes
    rows = [(of, names[of], each.area, indices[of], str(of in targets).lower()) for of, each in triggers.items()]
    write_csv(task.folder / CLASSES, ("label", "class", "area", "index", "unlearned"), rows)
    if not targets:
        return unchanged(task, f"no class has an anomaly index above {params.most_index:g}")
    log.info("unlearn the patch of %s", ", ".join(task.card.classes[target] for target in targets))
    of = trainable(task), images, params.recipe, cross_entropy, task.compute, params.batch_statistics
    return retrained(task, Stamped([triggers[target] for target in targets], params.share, *of))
