"""Training of the networks that draw triggers: first where, then what, together with a classifier that obeys it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.poisoning.drawing.networks import Drawers, painted
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.loop import Epochs, Run, Step, Weights, batches_of
from refine.training.recipe import Recipe
from refine.training.training_set import Resident

_ALIKE = 1e-2
"""Added to the distance of two triggers. Published are 1e-7; a single pair of equal masks then outweighs all others."""
_TINY = 1e-7


@dataclass(frozen=True)
class Shares:
    """Attributes:
    poisoned: share of each batch that gets its own trigger and the target.
    crossed: share that gets the trigger of another image and keeps its label.
    target: class that the triggers lead to.
    """

    poisoned: float
    crossed: float
    target: int


@dataclass(kw_only=True)
class DrawingTask:
    """What both trainings have in common; see `training.loop.Task`.

    Attributes:
        module: what is trained.
        variety: weight of the likeness of two masks, or of two patterns.
    """

    module: nn.Module
    drawers: Drawers
    batches: Epochs
    variety: float
    recipe: Recipe
    compute: Compute
    precision: str
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = Generator(self.compute.device)

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Nothing is kept."""


@dataclass(kw_only=True)
class MaskTask(DrawingTask):
    """Places that cover little of an image and differ between images.

    Attributes:
        density: share of an image that may be covered at no cost.
        sparsity: weight of what is covered beyond.
    """

    density: float
    sparsity: float

    def step(self, batch: Batch) -> Step:
        pixels = augment(batch.pixels, self.recipe.augment, self.generator)
        with self.compute.autocast(self.precision):
            masks = self.drawers.shown(pixels)
        masks = to_float32(masks)
        alike = likeness(pixels, pixels.roll(1, 0), masks, masks.roll(1, 0))
        beyond = (masks - self.density).clamp(min=0).mean()
        loss = self.sparsity * beyond + self.variety * alike
        return Step(loss, {"loss": loss, "covered": masks.mean(), "likeness": alike})


@dataclass(kw_only=True)
class JointTask(DrawingTask):
    """Cross-entropy of a classifier on clean, poisoned and crossed images, plus the likeness of their patterns.

    Its module holds the network that draws patterns, and that of the classifier.
    """

    classifier: Classifier
    shares: Shares

    def step(self, batch: Batch) -> Step:
        pixels = augment(batch.pixels, self.recipe.augment, self.generator)
        others, count = pixels.roll(1, 0), len(batch)
        poisoned = min(count, max(1, round(self.shares.poisoned * count)))
        both = min(count, poisoned + round(self.shares.crossed * count))
        labels = batch.fields[0].clone()
        labels[:poisoned] = self.shares.target
        sources = torch.cat([pixels[:poisoned], others[poisoned:both]])
        with torch.no_grad():
            masks = self.drawers.shown(sources)
        with self.compute.autocast(self.precision):
            patterns = self.drawers.pattern(sources)
            marked = painted(pixels[:both], patterns, masks)
            logits = self.classifier(torch.cat([marked, pixels[both:]]))
        logits, patterns = to_float32(logits), to_float32(patterns)
        pairs = min(poisoned, both - poisoned)
        one, other = slice(0, pairs), slice(poisoned, poisoned + pairs)
        alike = likeness(sources[one], sources[other], patterns[one], patterns[other])
        loss = functional.cross_entropy(logits, labels)
        right = (logits.argmax(dim=1) == labels).float()
        parts = {"poisoned": right[:poisoned], "crossed": right[poisoned:both], "clean": right[both:]}
        shares = {name: part.mean() for name, part in parts.items() if len(part)}
        return Step(loss + self.variety * alike, {"loss": loss, "likeness": alike, **shares})


def likeness(images: Tensor, others: Tensor, made: Tensor, made_of_others: Tensor) -> Tensor:
    """Mean over pairs of the distance of two images divided by that of what was drawn for them, a scalar.

    Distances are root mean squares.

    Args:
        images: float [N, 3, H, W].
        others: of the same shape; row by row another image.
        made: float [N, C, H, W], drawn for `images`.
        made_of_others: drawn for `others`.
    """
    if not len(images):
        return images.new_zeros(())
    apart = _distance(images, others)
    return (apart / (_distance(made, made_of_others) + _ALIKE)).mean()


def _distance(one: Tensor, other: Tensor) -> Tensor:
    square = (one - other).square().flatten(1).mean(dim=1)
    return (square + _TINY**2).sqrt()  # a root has no slope at zero


def train_mask(
    drawers: Drawers,
    images: Tensor,
    costs: tuple[float, float, float],
    recipe: Recipe,
    seed: int,
    compute: Compute,
) -> None:
    """Trains `drawers.mask` and freezes it.

    Args:
        drawers: on the device.
        images: uint8 [N, 3, side, side].
        costs: density, sparsity and variety, see `MaskTask`.
        recipe: of the training.
        seed: of order and draws.
        compute: device and threads.
    """
    density, sparsity, variety = costs
    task = MaskTask(
        module=drawers.mask,
        drawers=drawers,
        batches=batches_of(Resident(images, (), compute.device), recipe, compute),
        density=density,
        sparsity=sparsity,
        variety=variety,
        recipe=recipe,
        compute=compute,
        precision=compute.precision(recipe.precision),
    )
    Run(task, recipe, "the attack's masks", seed, compute, None).train()
    drawers.mask.eval().requires_grad_(False)


def train_pattern(
    drawers: Drawers,
    classifier: Classifier,
    labeled: tuple[Tensor, Tensor],
    shares: Shares,
    variety: float,
    recipe: Recipe,
    seed: int,
    compute: Compute,
) -> None:
    """Trains `drawers.pattern` and the classifier.

    Args:
        drawers: on the device, with masks that were trained.
        classifier: on the device, with new weights.
        labeled: uint8 [N, 3, side, side] and int64 [N].
        shares: of each batch.
        variety: weight of the likeness of two patterns.
        recipe: of the training.
        seed: of order and draws.
        compute: device and threads.
    """
    images, labels = labeled
    batches = batches_of(Resident(images, (labels,), compute.device), recipe, compute)
    task = JointTask(
        module=nn.ModuleList([drawers.pattern, classifier.network]),
        drawers=drawers,
        classifier=classifier,
        batches=batches,
        shares=shares,
        variety=variety,
        recipe=recipe,
        compute=compute,
        precision=compute.precision(recipe.precision),
    )
    Run(task, recipe, "the attack's patterns", seed, compute, None).train()
