"""From a score to a decision, and the files that thresholds and parameters are read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from refine.core.errors import UserError
from refine.core.registry import component, names
from refine.proof.judging.params import SIGNS, SignsParams, read_params, settings
from refine.proof.judging.sign import Finding
from refine.proof.judging.thresholds import Calibrated, Rate, Thresholds, read_thresholds
from refine.proof.judging.verdict import SignResult, judged
from refine.proof.signs.changed_answers import Params

RATE = Rate(count=1, of=20, interval_95=[0.0, 0.24])
SCORES = Finding(scores={"cat": 0.2, "dog": 3.5, "ship": 4.0})


def _calibrated(threshold: float | None, params: Params = Params()) -> Calibrated:  # noqa: B008 (immutable)
    rates = dict.fromkeys(("true_alarms", "false_alarms", "abstained_attacked", "abstained_clean"), RATE)
    return Calibrated(threshold=threshold, settings=params.model_dump(), **rates)


def _judged(finding: Finding, calibrated: Calibrated | None) -> SignResult:
    return judged("changed_answers", "a title", "a meaning", finding, Params(), calibrated)


def test_a_score_above_the_threshold_is_suspicious_and_names_its_classes() -> None:
    told = _judged(SCORES, _calibrated(3.0))
    assert (told.decision, told.suspicious_classes, told.score, told.threshold) == (
        "suspicious",
        ["ship", "dog"],
        4.0,
        3.0,
    )
    assert told.alarms is not None
    assert told.alarms.false_alarms == RATE


def test_a_score_at_the_threshold_is_not() -> None:
    told = _judged(SCORES, _calibrated(4.0))
    assert (told.decision, told.suspicious_classes) == ("nothing found", [])


@pytest.mark.parametrize(
    ("finding", "calibrated", "reason"),
    [
        (SCORES, None, "not calibrated"),
        (SCORES, _calibrated(None), "did not tell attacked models from clean ones"),
        (SCORES, _calibrated(3.0, Params(least_images=7)), "measured with other settings"),
        (Finding(scores=SCORES.scores, weak="too few"), _calibrated(3.0), "too few"),
        (Finding(), _calibrated(3.0), "no class could be examined"),
    ],
)
def test_it_abstains_where_the_evidence_is_weak(finding: Finding, calibrated: Calibrated | None, reason: str) -> None:
    told = _judged(finding, calibrated)
    assert (told.decision, told.suspicious_classes) == ("abstains", [])
    assert reason in told.reason
    assert told.score == finding.score


def test_the_thresholds_of_the_package_can_be_read() -> None:
    thresholds = read_thresholds()
    assert set(thresholds.signs) <= set(names(SIGNS))
    assert bool(thresholds.signs) != ("not been calibrated" in thresholds.calibrated_on)


@pytest.mark.parametrize("content", ["signs: {}", "calibrated_on: x\nsigns: {a: {threshold: .nan}}", "- 1", "a: ["])
def test_a_damaged_file_of_thresholds_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "thresholds.yaml").write_text(content)
    with pytest.raises(UserError, match=r"thresholds\.yaml"):
        read_thresholds(tmp_path / "thresholds.yaml")


@pytest.mark.parametrize("name", names(SIGNS))
def test_every_sign_has_its_parts(name: str) -> None:
    module = component(SIGNS, name, "a test")
    assert module.TITLE
    assert module.MEANING.endswith(".")
    assert settings(SignsParams())[name] == module.Params()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("settings: {neural_clense: {}}", "did you mean 'neural_cleanse'"),
        ("settings: {neural_cleanse: {steps: 0}}", "settings.neural_cleanse.steps"),
        ("sed: 1", "did you mean 'seed'"),
        ("images: many", "signs.images"),
    ],
)
def test_wrong_parameters_are_refused_in_one_sentence(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(UserError, match=r"own\.yaml") as error:
        read_params(tmp_path / "own.yaml")
    assert told in str(error.value)


def test_parameters_are_read(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("seed: 3\nsettings: {neural_cleanse: {steps: 10}}")
    read = read_params(tmp_path / "own.yaml")
    assert (read.seed, settings(read)["neural_cleanse"].model_dump()["steps"]) == (3, 10)


def test_thresholds_survive_writing(tmp_path: Path) -> None:
    from refine_lab.calibration.pages import write_thresholds

    thresholds = Thresholds(calibrated_on="a test", signs={"changed_answers": _calibrated(1.25)})
    write_thresholds(tmp_path / "thresholds.yaml", thresholds)
    assert read_thresholds(tmp_path / "thresholds.yaml") == thresholds
