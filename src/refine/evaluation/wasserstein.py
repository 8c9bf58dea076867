"""How far a defense moves what a classifier sees and says: Wasserstein-1 distances (REFINE's Theorem 1 is about one).

A diagnostic and never a certificate: a transform that permutes the images among each other has distance 0 and may
change every single answer. Each figure comes with what it is to be read against, see `distances`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from refine.defending.protocol.defense import Defense, MapsLabels, Purifies
from refine.evaluation.test_sets import Diagnosed, TestSets
from refine.models.classifier import Classifier
from refine.models.device import Compute
from refine.shards.reading.pixels import in_batches

DIGITS = 4


@dataclass(frozen=True)
class Seen:
    """What a classifier makes of images, each float and on the CPU.

    Attributes:
        penultimate: [n, d], in front of its last layer.
        softmax: [n, K], before any label map.
    """

    penultimate: Tensor
    softmax: Tensor


@dataclass(frozen=True)
class Both:
    """The same images as the bare classifier sees them, and behind the transform."""

    before: Seen
    after: Seen


@dataclass(frozen=True)
class Looks:
    """What bare and defended classifier make of the images that diagnostics look at.

    Attributes:
        chosen: which images.
        benign: without trigger.
        attacked: others, without and with their trigger; None where hardly anything is triggered.
    """

    chosen: Diagnosed
    benign: Both
    attacked: tuple[Both, Both] | None


def look_at_all(
    classifier: Classifier, defense: Defense, tests: TestSets, chosen: Diagnosed, batch_size: int, compute: Compute
) -> Looks | None:
    """Looks at the chosen images; None for a defense that hands the classifier the images as they are."""
    if not isinstance(defense, Purifies):
        return None
    seen = partial(look, classifier, defense.classifier, defense, batch_size=batch_size, compute=compute)
    benign = seen(tests.clean.images[chosen.benign])
    if not len(chosen.triggered):
        return Looks(chosen, benign, None)
    clean = tests.clean.images[tests.truth.clean_rows[chosen.triggered]]
    return Looks(chosen, benign, (seen(clean), seen(tests.triggered.images[chosen.triggered])))


@torch.inference_mode()
def look(
    classifier: Classifier, inside: Classifier, defense: Purifies, images: Tensor, batch_size: int, compute: Compute
) -> Both:
    """What the bare classifier and the one inside a defense make of images uint8 [n, 3, H, W]."""
    before, after = [], []
    for pixels in in_batches(images, batch_size, compute.device):
        before.append(_looked(classifier, classifier.normalize(pixels)))
        after.append(_looked(inside, defense.network_inputs(defense.transformed(pixels))))
    return Both(_seen(classifier, before), _seen(inside, after))


def _looked(classifier: Classifier, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features, and logits where no head computes them from features."""
    features: Tensor = classifier.network.features(inputs)  # type: ignore[operator]
    return features.float(), None if hasattr(classifier.network, "head") else classifier.network(inputs)


def _seen(classifier: Classifier, looked: list[tuple[Tensor, Tensor | None]]) -> Seen:
    features = torch.cat([each for each, _ in looked])
    given = [each for _, each in looked if each is not None]
    logits: Tensor = torch.cat(given) if given else classifier.network.head(features)  # type: ignore[operator]
    return Seen(features.cpu(), logits.softmax(dim=1).cpu())


def distance(one: Tensor, other: Tensor) -> float:
    """The exact Wasserstein-1 distance of two sets of as many points, float [n, d] each; ground cost Euclidean."""
    one, other = one.double(), other.double()
    cost = torch.cdist(one, other, compute_mode="use_mm_for_euclid_dist")  # many times as fast, and enough to choose by
    rows, columns = linear_sum_assignment(cost.numpy())
    return float((one[rows] - other[columns]).norm(dim=1).mean())


def distances(looks: Looks, defense: Defense) -> dict[str, dict[str, float]]:
    """All figures, by representation, rounded to four decimals.

    `moved_benign`, `moved_triggered`: images before and after the transform, large under REFINE. `trigger_before`,
    `trigger_after`: images without and with their trigger; large where the trigger works, small where it was removed.
    `utility` (softmax): what the bare and what the defended classifier says to benign images, small where accuracy is
    kept.

    Both sets of each hold the same images, in their first half. So 0 says that nothing moved, and chance has no part in
    it. What a figure is to be read against stands beside it, under its name with an ending:

    `_ceiling`: mean distance of an image from itself, which the figure cannot exceed; it stays below where images take
    each other's places.
    `_independent`: between the one set's first half and the other's second, which are different images. Such a distance
    is above 0 by chance alone, the more so the fewer images and the more dimensions there are.
    `_null`: between both halves of the first set: what `_independent` is where nothing moves. The figure itself, of the
    same images, may lie below it without any meaning.

    Args:
        looks: at 2 n benign images, two halves of the same classes, and at 2 n without and with their trigger, in
            halves as well.
        defense: whose label map counts, where it has one.
    """
    return {name: _figures(name, looks, defense) for name in ("penultimate", "softmax")}


def _figures(name: str, looks: Looks, defense: Defense) -> dict[str, float]:
    benign, attacked = looks.benign, looks.attacked
    before, after = getattr(benign.before, name), getattr(benign.after, name)
    compared = {"moved_benign": (before, after)}
    if name == "softmax":
        compared["utility"] = before, defense.mapped(after) if isinstance(defense, MapsLabels) else after
    if attacked is not None:
        (clean, clean_after), (triggered, triggered_after) = (
            (getattr(both.before, name), getattr(both.after, name)) for both in attacked
        )
        compared["moved_triggered"] = triggered, triggered_after
        compared["trigger_before"] = clean, triggered
        compared["trigger_after"] = clean_after, triggered_after
    return {f"{figure}{ending}": value for figure, sets in compared.items() for ending, value in _read(*sets).items()}


def _read(one: Tensor, other: Tensor) -> dict[str, float]:
    """A figure and what it is read against, by the endings of their names, of float [2 n, d] in two halves."""
    (first, second), (moved, second_moved) = one.chunk(2), other.chunk(2)
    figures = {
        "": distance(first, moved),
        "_ceiling": float((first.double() - moved.double()).norm(dim=1).mean()),
        "_independent": distance(first, second_moved),
        "_null": distance(first, second),
    }
    return {ending: round(value, DIGITS) for ending, value in figures.items()}
