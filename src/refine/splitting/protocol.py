"""What a split of the training set is: a folder of `refine.splits` whose `split.py` holds, by these names:

- `Params`, its settings, a `splitting.params.SplitParams`;
- `split(task) -> Outcome`, which groups the images of a poisoned training set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from refine.models.architecture import Architecture
from refine.models.device import Compute
from refine.training.checkpoint import Checkpoints
from refine.training.loop import Row


@dataclass(frozen=True)
class Task:
    """What `split` is given.

    Attributes:
        settings: the split's `Params`.
        images: folder of the shards of the poisoned training set.
        architecture: of the classifier that is defended.
        compute: device and threads.
        checkpoints: of this run; None keeps none.
    """

    settings: Any
    images: Path
    architecture: Architecture
    compute: Compute
    checkpoints: Checkpoints | None = None


@dataclass(frozen=True)
class Outcome:
    """A split of N images, ordered by their keys.

    Attributes:
        fct: float32 [N], at least 0; the larger, the more a sample looks poisoned. Feature consistency toward
            transformations (FCT) where it was measured.
        groups: int64 [N], see `splitting.groups`.
        refusal: why the groups cannot be trusted, as a sentence without a full stop; None if the gate passed.
        abstain: whether a defense should leave the classifier as it is because of the refusal.
        figures: further entries of `split.json`, finite numbers.
        history: a row per epoch of a training; empty without one.
        epochs: float32 [E, N], the FCT after each epoch; E is 0 without a training.
    """

    fct: Tensor
    groups: Tensor
    refusal: str | None = None
    abstain: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    epochs: Tensor | None = None
