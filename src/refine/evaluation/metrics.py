"""What a system's probabilities are worth: benign accuracy, attack success rate and their companions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from torch import Tensor

DIGITS = 6
NLL_FLOOR = 1e-12
BEST = 5
"""The most likely classes, one of which may be the label (`top5_accuracy`)."""
MISREAD = 5
"""Classes that a summary of misreadings names; the whole of it is the confusion of the triggered images."""


@dataclass(frozen=True)
class Answers:
    """What one system (bare or defended) says to the test images.

    Probabilities are not kept: for 50,000 images of 1,000 classes they take 200 MB.

    Attributes:
        benign: int64 [N], the most likely classes of the clean test images.
        likelihood: float [N], what is given to their labels.
        best: bool [N], whether these are among the five most likely; None where there are no more than five classes.
        triggered: int64 [M], the most likely classes of the triggered images.
        raw_triggered: int64 [M], what the classifier inside answers to the triggered images before a label map; None
            where the system has none.
    """

    benign: Tensor
    likelihood: Tensor
    best: Tensor | None
    triggered: Tensor
    raw_triggered: Tensor | None = None


def summed_up(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """`benign`, `likelihood` and `best` of `Answers`, from float [N, K] and int64 [N]."""
    likelihood = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    best = None
    if probabilities.shape[1] > BEST:
        best = (probabilities.topk(BEST, dim=1).indices == labels.unsqueeze(1)).any(dim=1)
    return probabilities.argmax(dim=1), likelihood, best


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
    """The shares that a system is judged by, in [0, 1], rounded to six decimals; what is not defined is left out.

    `benign_accuracy`: clean images predicted as their label. With triggered images also `attack_success_rate`:
    triggered images predicted as their given label; `asr_floor_clean`: the same for their clean versions;
    `robust_accuracy`: triggered images predicted as their true label.
    """
    predicted = answers.benign
    figures = {"benign_accuracy": share(predicted == truth.labels)}
    if len(truth.given):
        triggered = answers.triggered
        figures["attack_success_rate"] = share(triggered == truth.given)
        figures["asr_floor_clean"] = share(predicted[truth.clean_rows] == truth.given)
        figures["robust_accuracy"] = share(triggered == truth.behind)
    return {name: round(value, DIGITS) for name, value in figures.items()}


def diagnose(answers: Answers, truth: Truth) -> dict[str, float]:
    """Further figures of a system, rounded to six decimals; what is not defined is left out.

    `benign_nll`: mean -ln of the label's probability, floored at 1e-12. `top5_accuracy`: with more than five classes.
    `raw_target_hit`: triggered images to which the classifier inside answers the given label, whether or not a label
    map hides it.
    """
    likelihood = answers.likelihood.double().clamp(min=NLL_FLOOR)
    figures = {"benign_nll": abs(likelihood.log().mean().item())}
    if answers.best is not None:
        figures["top5_accuracy"] = share(answers.best)
    if len(truth.given) and answers.raw_triggered is not None:
        figures["raw_target_hit"] = share(answers.raw_triggered == truth.given)
    return {name: round(value, DIGITS) for name, value in figures.items()}


def judged(before: Mapping[str, float], after: Mapping[str, float], truth: Truth) -> dict[str, Any]:
    """The content of a system's metrics file: its shares, its `der`, and the intervals of the shares.

    Args:
        before: shares of the classifier without defense.
        after: shares of the system.
    """
    counts = {name: len(truth.labels if name == "benign_accuracy" else truth.given) for name in after}
    figures: dict[str, Any] = {"interval_95": {name: interval(value, counts[name]) for name, value in after.items()}}
    if "attack_success_rate" in after:
        figures["der"] = der(before, after)
    return {**after, **figures}


def agreeing(answers: Answers, bare: Answers) -> float:
    """The share of clean images that a system answers as the bare classifier does, rounded to six decimals.

    A defender who has no labels can measure this, too.
    """
    return round(share(answers.benign == bare.benign), DIGITS)


def agreement(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a system's metrics file where the answers of the bare classifier stood for labels."""
    low_and_high = figures["interval_95"]["benign_accuracy"]
    return {"agreement": figures["benign_accuracy"], "interval_95": {"agreement": low_and_high}}


def interval(value: float, count: int) -> list[float]:
    """The 95 % interval of a share of so many images (Wilson 1927), [low, high], rounded to six decimals."""
    z = NormalDist().inv_cdf(0.975)
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(value * (1 - value) / count + z**2 / (4 * count**2))
    return [round(max(0.0, middle - half), DIGITS), round(min(1.0, middle + half), DIGITS)]


def der(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The defense effectiveness rating, rounded to six decimals (Zhu et al., FT-SAM, ICCV 2023).

    [max(0, fall of the attack success rate) - max(0, fall of the benign accuracy) + 1] / 2: 0.5 without an effect, 1
    where an attack that always succeeded never does and the benign accuracy is kept.
    """
    fall = {name: max(0.0, before[name] - after[name]) for name in ("attack_success_rate", "benign_accuracy")}
    return round((fall["attack_success_rate"] - fall["benign_accuracy"] + 1) / 2, DIGITS)


def misread(predicted: Tensor, truth: Truth, classes: Sequence[str]) -> list[dict[str, str | float]]:
    """Classes that triggered images are taken for, neither their own nor the attacker's, the most frequent first.

    Args:
        predicted: int64 [M], answers to the triggered images.
        classes: names.

    Returns:
        At most five mappings of `as`, a class, and `share`, of all triggered images.
    """
    counts = (
        predicted[(predicted != truth.behind) & (predicted != truth.given)].bincount(minlength=len(classes)).tolist()
    )
    frequent = sorted(range(len(classes)), key=lambda label: -counts[label])[:MISREAD]
    return [
        {"as": classes[label], "share": round(counts[label] / len(predicted), DIGITS)}
        for label in frequent
        if counts[label]
    ]


def share(hits: Tensor) -> float:
    """How many of these are true, from 0 to 1."""
    return hits.double().mean().item()
