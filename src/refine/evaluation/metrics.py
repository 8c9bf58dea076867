"""What a system's probabilities are worth: benign accuracy, attack success rate and their companions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

DIGITS = 6
NLL_FLOOR = 1e-12
MISREAD = 5
"""Classes that a summary of misreadings names; the whole of it is the confusion of the triggered images."""


@dataclass(frozen=True)
class Answers:
    """What one system (bare or defended) says to the test images.

    Attributes:
        benign: float [N, K], probabilities for all clean test images.
        triggered: float [M, K], for the triggered images.
        raw_triggered: int64 [M], what the classifier inside answers to the triggered images before any label map.
    """

    benign: Tensor
    triggered: Tensor
    raw_triggered: Tensor


@dataclass(frozen=True)
class Truth:
    """What the answers are held against.

    Attributes:
        labels: int64 [N], true labels of the clean test images.
        clean_rows: int64 [M], the row of the clean image behind each triggered one.
        given: int64 [M], label that the attacker gave to it, never its true one.
    """

    labels: Tensor
    clean_rows: Tensor
    given: Tensor

    @property
    def behind(self) -> Tensor:
        """True labels of the triggered images, int64 [M]."""
        return self.labels[self.clean_rows]


def measure(answers: Answers, truth: Truth) -> dict[str, float]:
    """All figures of one system, fractions in [0, 1] rounded to six decimals; what is not defined is left out.

    `benign_accuracy`: clean images predicted as their label. `benign_nll`: mean -ln of the label's probability,
    floored at 1e-12. `top5_accuracy`: with more than five classes. With triggered images also
    `attack_success_rate`: triggered images predicted as their given label; `asr_floor`: the same for their clean
    versions; `robust_accuracy`: triggered images predicted as their true label; `raw_target_hit`: triggered images
    to which the classifier inside answers the given label, whether or not a label map hides it.
    """
    predicted = answers.benign.argmax(dim=1)
    likelihood = answers.benign.double().gather(1, truth.labels.unsqueeze(1)).clamp(min=NLL_FLOOR)
    figures = {
        "benign_accuracy": share(predicted == truth.labels),
        "benign_nll": abs(likelihood.log().mean().item()),
    }
    if answers.benign.shape[1] > 5:
        best = answers.benign.topk(5, dim=1).indices
        figures["top5_accuracy"] = share((best == truth.labels.unsqueeze(1)).any(dim=1))
    if len(truth.given):
        said = answers.triggered.argmax(dim=1)
        figures["attack_success_rate"] = share(said == truth.given)
        figures["asr_floor"] = share(predicted[truth.clean_rows] == truth.given)
        figures["robust_accuracy"] = share(said == truth.behind)
        figures["raw_target_hit"] = share(answers.raw_triggered == truth.given)
    return {name: round(value, DIGITS) for name, value in figures.items()}


def misread(said: Tensor, truth: Truth, classes: Sequence[str]) -> list[dict[str, str | float]]:
    """Classes that triggered images are taken for, neither their own nor the attacker's, the most frequent first.

    Args:
        said: int64 [M], answers to the triggered images.
        classes: names.

    Returns:
        At most five mappings of `as`, a class, and `share`, of all triggered images.
    """
    counts = said[(said != truth.behind) & (said != truth.given)].bincount(minlength=len(classes)).tolist()
    frequent = sorted(range(len(classes)), key=lambda label: -counts[label])[:MISREAD]
    return [
        {"as": classes[label], "share": round(counts[label] / len(said), DIGITS)} for label in frequent if counts[label]
    ]


def share(hits: Tensor) -> float:
    """How many of these are true, from 0 to 1."""
    return hits.double().mean().item()
