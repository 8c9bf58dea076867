"""What systems answer to the test images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from refine.core.progress import progress
from refine.defending.protocol.defense import Defense, MapsLabels
from refine.evaluation.metrics import Answers
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
    benign, triggered = (probabilities(system, split, batch_size, compute) for split in (tests.clean, tests.triggered))
    raw = system.unmapped(triggered.argmax(dim=1)) if isinstance(system, MapsLabels) else None
    return Answers(benign, triggered, raw)


@torch.inference_mode()
def probabilities(system: Defense, split: AnySplit, batch_size: int, compute: Compute) -> Tensor:
    """What a system says to all images of a split, in their order, float [N, K] on the CPU."""
    parts = split.images.batches(batch_size) if isinstance(split, StoredSplit) else iter([split.images])
    batches = (pixels for part in parts for pixels in in_batches(part, batch_size, compute.device))
    shown = progress(batches, "evaluate", -(-len(split.images) // batch_size), "batch")
    given = [system.probabilities(pixels).cpu() for pixels in shown]
    return torch.cat(given) if given else torch.zeros(0, len(split.manifest.classes))
