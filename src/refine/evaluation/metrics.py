"""What a system's probabilities are worth: benign accuracy, attack success rate and their companions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

DIGITS = 6
NLL_FLOOR = 1e-12


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
        "benign_accuracy": _share(predicted == truth.labels),
        "benign_nll": abs(likelihood.log().mean().item()),
    }
    if answers.benign.shape[1] > 5:
        best = answers.benign.topk(5, dim=1).indices
        figures["top5_accuracy"] = _share((best == truth.labels.unsqueeze(1)).any(dim=1))
    if len(truth.given):
        fooled = answers.triggered.argmax(dim=1)
        figures["attack_success_rate"] = _share(fooled == truth.given)
        figures["asr_floor"] = _share(predicted[truth.clean_rows] == truth.given)
        figures["robust_accuracy"] = _share(fooled == truth.labels[truth.clean_rows])
        figures["raw_target_hit"] = _share(answers.raw_triggered == truth.given)
    return {name: round(value, DIGITS) for name, value in figures.items()}


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
