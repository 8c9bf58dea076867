"""How often a trigger works on a system, and how far the system's answers are from those of the user's model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from refine.defending.protocol.defense import Defense
from refine.evaluation.answers import predictions
from refine.evaluation.metrics import DIGITS, interval, share
from refine.models.device import Compute
from refine.poisoning.attack import AnyAttack
from refine.proof.stress.planting import changed
from refine.proof.stress.result import Measured, Rate
from refine.shards.reading.reader import Split


@dataclass(frozen=True)
class Bench:
    """The images for measuring, and what the user's model says to them.

    Attributes:
        images: of the part; labels count only where they are `labeled`.
        answers: int64 [N], of the model.
        labeled: whether the labels are true ones.
        batch_size: images that are classified at a time.
        compute: device.
    """

    images: Split
    answers: Tensor
    labeled: bool
    batch_size: int
    compute: Compute


@dataclass(frozen=True)
class Triggered:
    """Images for measuring with a trigger: those that the model does not take for the target without it.

    Attributes:
        rows: of the bench's images, int64 [M].
        images: with the trigger.
        target: of the trigger.
    """

    rows: Tensor
    images: Split
    target: int


def triggered(attack: AnyAttack, bench: Bench) -> Triggered:
    """The images with an attack's trigger; the bench has one that the model does not take for its target."""
    target: int = attack.params.target
    chosen = bench.answers != target
    others = bench.images.subset(chosen)
    images = replace(others, images=changed(others.images, others.keys, attack.trigger))
    return Triggered(chosen.nonzero().flatten(), images, target)


def measured(system: Defense, with_trigger: Triggered, bench: Bench) -> Measured:
    """Asks a system, on the bench's device, for all images with and without the trigger."""
    said, said_triggered = (
        predictions(system, split, bench.batch_size, bench.compute) for split in (bench.images, with_trigger.images)
    )
    rows, target = with_trigger.rows, with_trigger.target
    return Measured(
        attack_success_rate=rate(said_triggered == target),
        target_without_trigger=rate(said[rows] == target),
        agreement=rate(said == bench.answers),
        robust_agreement=rate(said_triggered == bench.answers[rows]),
        benign_accuracy=rate(said == bench.images.labels) if bench.labeled else None,
    )


def rate(hits: Tensor) -> Rate:
    """How many of these are true, bool [n], n >= 1."""
    value = share(hits)
    return Rate(share=round(value, DIGITS), interval_95=interval(value, len(hits)), images=len(hits))
