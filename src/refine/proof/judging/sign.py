"""What a sign of a backdoor is: a file of `refine.proof.signs` that holds, by these names:

- `TITLE` and `MEANING`: its name, and in plain words what it means if it is found;
- `Params`, its settings, a `Section`;
- `look(subject, params, seed) -> Finding`, which examines a classifier.

Nothing in it knows a threshold: those are measured, see `proof.judging.thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from refine.models.classifier import Classifier
from refine.models.device import Compute
from refine.shards.reading.pixels import to_pixels


@dataclass(frozen=True)
class Subject:
    """A classifier that is examined, with images of its user.

    Attributes:
        classifier: frozen, in eval mode, on the device.
        classes: names, in the order of the logits.
        images: uint8 [N, 3, H, W], RGB, of the classifier's side, on the CPU.
        names: of the N images.
        probabilities: what the classifier answers to them, float32 [N, K] on the CPU.
        compute: device and threads.
        precision: `fp32` or `bf16`, of networks.
        defended_probabilities: what the classifier under a defense answers to them, likewise; None without a defense.
    """

    classifier: Classifier
    classes: list[str]
    images: Tensor
    names: list[str]
    probabilities: Tensor
    compute: Compute
    precision: str = "fp32"
    defended_probabilities: Tensor | None = None

    @property
    def predicted(self) -> Tensor:
        """The classifier's answers, int64 [N]; they stand for labels, which nobody has to have."""
        return self.probabilities.argmax(dim=1)

    def drawn(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Some images at random, or all if there are no more: pixels float [n, 3, H, W] on the device, answers [n]."""
        rows = torch.randperm(len(self.images), generator=Generator().manual_seed(seed))[:count].sort().values
        return to_pixels(self.images[rows].to(self.compute.device)), self.predicted[rows].to(self.compute.device)


@dataclass(frozen=True)
class Changed:
    """An image to which a defended classifier answers otherwise.

    Attributes:
        image: its name.
        before: class that the classifier answers.
        before_probability: of that class, by the classifier.
        after: class that the defended classifier answers.
        after_probability: of that class, by the defended classifier.
    """

    image: str
    before: str
    before_probability: float
    after: str
    after_probability: float


@dataclass(frozen=True)
class Finding:
    """What a sign found.

    Attributes:
        scores: of classes by their names, the more suspicious the higher. The highest is the model's. A class that
            was not examined is left out.
        weak: why the evidence is too weak for a judgment, as a clause without a full stop; None if it is not.
        figures: further numbers, finite.
        changed: images to which a defended classifier answers otherwise, the most suspicious first.
    """

    scores: dict[str, float] = field(default_factory=dict)
    weak: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)

    @property
    def score(self) -> float | None:
        """The highest score of a class; None if no class was examined."""
        return max(self.scores.values(), default=None)
