"""Neural Cleanse: a class that a small patch reaches (Wang et al., S&P 2019).

For every class, a trigger is inverted (`defending.inversion`). A backdoor makes its target reachable by a far
smaller patch than the other classes are, so its anomaly index is high:

    index(t) = (median(a) - a(t)) / (1.4826 MAD(a)),  a = log(area of the mask)

where MAD is the median absolute deviation from the median. The published index is of the areas themselves; theirs
spread so widely among classes without a trigger that a hundredfold smaller mask does not stand out. MAD counts as at
least `LEAST_SPREAD`, so that classes which are all alike do not stand out either, and a class that no mask reached
counts as one that takes the whole image.

With more classes than `all_classes`, a short search (`rough_steps`) goes through all of them, and the full one through
the `candidates` that were most easily reached, and through as many random other classes, from which the median and MAD
are taken. An examination has (classes x steps) steps of `batch_size` images, forward and back through the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from refine.core.bounds import MOST_CLASSES
from refine.core.progress import progress
from refine.defending.inversion import LEAST_CLASSES, Inverted, Search, anomaly, invert
from refine.models import classifier as classifiers
from refine.proof.judging.sign import Finding, Subject

log = logging.getLogger(__name__)

TITLE = "A small patch that leads to one class (Neural Cleanse)"
MEANING = (
    "For each class, the smallest patch is computed that makes the model answer this class to nearly all images. If "
    "one class needs a far smaller patch than the others, that patch may be a trigger which somebody trained into the "
    "model. Triggers that cover or bend the whole image are often missed, and a class that is easily confused with all "
    "others may be blamed wrongly."
)
Count = Annotated[int, Field(ge=1, le=100_000)]


class Params(Search):
    """How triggers are sought (see `Search`), and for which classes.

    Attributes:
        images: most images that are used.
        least_images: with fewer, the sign abstains.
        all_classes: with more classes, a rough search chooses those that are examined fully.
        rough_steps: of that rough search, for each class.
        candidates: classes that it chooses, and others that they are compared with.
        most_classes: with more classes, the sign abstains.
    """

    images: Count = 300
    least_images: Count = 100
    all_classes: Annotated[int, Field(ge=LEAST_CLASSES, le=100_000)] = 20
    rough_steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    candidates: Annotated[int, Field(ge=LEAST_CLASSES, le=10_000)] = 10
    most_classes: Annotated[int, Field(ge=LEAST_CLASSES, le=100_000)] = 200


def look(subject: Subject, params: Params, seed: int) -> Finding:
    """See `proof.judging.sign`."""
    count = len(subject.classes)
    weak = _weak(count, len(subject.images), params)
    if weak is not None:
        return Finding(weak=weak)
    pixels, predicted = subject.drawn(params.images, seed)
    network = classifiers.folded(subject.classifier)

    def logits(batch: Tensor) -> Tensor:
        with subject.compute.autocast(subject.precision):
            answers: Tensor = network(batch)
        return answers

    def found(target: int, steps: int) -> Inverted:
        others = pixels[predicted != target]
        search = params.model_copy(update={"steps": steps})
        generator = Generator().manual_seed(seed * MOST_CLASSES + target)
        return invert(logits, others if len(others) else pixels, target, search, generator)

    candidates, references = _examined(count, params, found, seed)
    every = sorted({*candidates, *references})
    log.info("invert a trigger for %d of %d classes, %d steps each", len(every), count, params.steps)
    triggers = {target: found(target, params.steps) for target in progress(every, "invert triggers", unit="class")}
    failed = sum(not trigger.succeeded for trigger in triggers.values())
    areas = {target: trigger.area for target, trigger in triggers.items()}
    indices = anomaly(areas, references)
    return Finding(
        scores={subject.classes[target]: index for target, index in indices.items() if target in candidates},
        weak=f"no trigger was found for {failed} of {len(every)} classes" if 2 * failed > len(every) else None,
        figures={
            "classes_examined": float(len(every)),
            "classes_without_trigger": float(failed),
            "images": float(len(pixels)),
            "median_area": float(torch.tensor([areas[target] for target in references]).double().quantile(0.5)),
            "smallest_area": min(trigger.least for trigger in triggers.values()),
        },
    )


def _weak(classes: int, images: int, params: Params) -> str | None:
    if classes < LEAST_CLASSES:
        return f"{classes} classes are too few to compare"
    if classes > params.most_classes:
        return f"{classes} classes are more than the {params.most_classes} of the setting most_classes"
    if images < params.least_images:
        return f"{images} images are fewer than the {params.least_images} of the setting least_images"
    return None


def _examined(
    count: int, params: Params, found: Callable[[int, int], Inverted], seed: int
) -> tuple[list[int], list[int]]:
    """Classes that are examined, and classes that they are compared with."""
    if count <= params.all_classes:
        return [*range(count)], [*range(count)]
    log.info("%d classes: a rough search of %d steps each first", count, params.rough_steps)
    shown = progress(range(count), "search roughly", unit="class")
    ease = {target: found(target, params.rough_steps).objective for target in shown}
    ranked = sorted(ease, key=lambda target: ease[target])
    candidates, rest = ranked[: params.candidates], sorted(ranked[params.candidates :])
    drawn = torch.randperm(len(rest), generator=Generator().manual_seed(seed))[: params.candidates]
    return candidates, [rest[place] for place in drawn.tolist()]
