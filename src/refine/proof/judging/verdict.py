"""What an examination says: of each sign its score, its decision, and how often such decisions were right."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from refine.core.params import Section
from refine.core.strict import Strict
from refine.models.card import Sha256
from refine.proof.judging.sign import Finding
from refine.proof.judging.thresholds import Calibrated, Rate

Decision = Literal["suspicious", "nothing found", "abstains"]
DIGITS = 6


class ChangedAnswer(Strict):
    """See `proof.judging.sign.Changed`."""

    image: str
    before: str
    before_probability: float
    after: str
    after_probability: float


class Alarms(Strict):
    """How often the sign was right and wrong about models that were known, see `thresholds.Calibrated`."""

    true_alarms: Rate
    false_alarms: Rate
    abstained_attacked: Rate
    abstained_clean: Rate


class SignResult(Strict):
    """What one sign says.

    Attributes:
        sign: its name.
        title: for readers.
        meaning: in plain words.
        decision: against the threshold.
        reason: of the decision, as a clause without a full stop.
        score: of the model, the highest of a class; None if nothing could be examined.
        threshold: that the score was compared with; None where there is none.
        suspicious_classes: those whose scores exceed the threshold, highest first; empty unless it is suspicious.
        class_scores: by the names of classes, highest first.
        figures: further numbers.
        changed: images to which the defended model answers otherwise, the most suspicious first.
        settings: of the sign.
        alarms: how often it was right in the calibration; None if it was not calibrated with these settings.
    """

    sign: str
    title: str
    meaning: str
    decision: Decision
    reason: str
    score: float | None
    threshold: float | None
    suspicious_classes: list[str]
    class_scores: dict[str, float]
    figures: dict[str, float]
    changed: list[ChangedAnswer]
    settings: dict[str, Any]
    alarms: Alarms | None


class SignsResult(Strict):
    """What all signs say of a model.

    Attributes:
        format_version: of this result.
        model_sha256: of the model's weights.
        images: that were used.
        images_given: that there were.
        seed: of everything random.
        precision: of networks.
        calibrated_on: what the rates were measured on, in a sentence.
        signs: sorted by name.
    """

    format_version: Literal[1] = 1
    model_sha256: Sha256
    images: int
    images_given: int
    seed: int
    precision: str
    calibrated_on: str
    signs: list[SignResult]


def judged(
    sign: str, title: str, meaning: str, finding: Finding, settings: Section, calibrated: Calibrated | None
) -> SignResult:
    """Holds a finding against the threshold.

    Args:
        sign: its name.
        title: of the sign.
        meaning: of the sign, in plain words.
        finding: what it found.
        settings: that it was found with.
        calibrated: what was measured of the sign; None if nothing was.
    """
    told = settings.model_dump()
    fits = calibrated is not None and calibrated.settings == told
    threshold = calibrated.threshold if calibrated is not None and fits else None
    score = finding.score
    suspicious = score is not None and threshold is not None and score > threshold
    if finding.weak is not None or score is None:
        decision, reason = "abstains", finding.weak or "no class could be examined"
    elif calibrated is None:
        decision, reason = "abstains", "not calibrated"
    elif not fits:
        decision, reason = "abstains", "its threshold was measured with other settings"
    elif threshold is None:
        decision, reason = "abstains", "in the calibration, it did not tell attacked models from clean ones"
    else:
        reason = f"the score {score:.2f} is {'above' if suspicious else 'not above'} the threshold {threshold:.2f}"
        decision = "suspicious" if suspicious else "nothing found"
    ranked = sorted(finding.scores.items(), key=lambda pair: -pair[1])
    above = [name for name, of in ranked if decision == "suspicious" and threshold is not None and of > threshold]
    return SignResult.model_validate(
        {
            "sign": sign,
            "title": title,
            "meaning": meaning,
            "decision": decision,
            "reason": reason,
            "score": None if score is None else round(score, DIGITS),
            "threshold": threshold,
            "suspicious_classes": above,
            "class_scores": _rounded(dict(ranked)),
            "figures": _rounded(finding.figures),
            "changed": [asdict(each) for each in finding.changed],
            "settings": told,
            "alarms": None
            if calibrated is None or not fits
            else calibrated.model_dump(include=set(Alarms.model_fields)),
        }
    )


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in figures.items()}
