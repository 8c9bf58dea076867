"""What systems answer to the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from refine.core.progress import progress
from refine.defending.protocol.defense import Defense, MapsLabels
from refine.evaluation.metrics import Answers, summed_up
from refine.evaluation.test_sets import AnySplit, TestSets
from refine.models.device import Compute
from refine.shards.reading.pixels import in_batches
from refine.shards.reading.stored import StoredSplit


def answers_of_all(
    systems: Mapping[str, Defense], tests: TestSets, batch_size: int, compute: Compute
) -> dict[str, Answers]:
    """Answers of several systems by their names."""
    return {name: answers(system, tests, batch_size, compute) for name, system in systems.items()}


def answers(system: Defense, tests: TestSets, batch_size: int, compute: Compute) -> Answers:
    """Answers of a system to clean and triggered images."""
    labels, place = tests.clean.labels, 0
    parts = []
    for given in _given(system, tests.clean, batch_size, compute):
        parts.append(summed_up(given, labels[place : place + len(given)]))
        place += len(given)
    benign, likelihood, best = zip(*parts, strict=True)
    triggered = predictions(system, tests.triggered, batch_size, compute)
    return Answers(
        torch.cat(benign),
        torch.cat(likelihood),
        None if best[0] is None else torch.cat(best),
        triggered,
        system.unmapped(triggered) if isinstance(system, MapsLabels) else None,
    )


def predictions(system: Defense, split: AnySplit, batch_size: int, compute: Compute) -> Tensor:
    """The most likely classes of all images of a split, in their order, int64 [N] on the CPU."""
    none = torch.zeros(0, dtype=torch.int64)
    return torch.cat([none, *(given.argmax(dim=1) for given in _given(system, split, batch_size, compute))])


def probabilities(system: Defense, split: AnySplit, batch_size: int, compute: Compute) -> Tensor:
    """What a system says to all images of a split, in their order, float [N, K] on the CPU."""
    given = list(_given(system, split, batch_size, compute))
    return torch.cat(given) if given else torch.zeros(0, len(split.manifest.classes))


@torch.inference_mode()
def _given(system: Defense, split: AnySplit, batch_size: int, compute: Compute) -> Iterator[Tensor]:
    """What a system says to the images of a split, a batch at a time, float [B, K] on the CPU."""
    parts = split.images.batches(batch_size) if isinstance(split, StoredSplit) else iter([split.images])
    batches = (pixels for part in parts for pixels in in_batches(part, batch_size, compute.device))
    for pixels in progress(batches, "evaluate", -(-len(split.images) // batch_size), "batch"):
        yield system.probabilities(pixels).cpu()
