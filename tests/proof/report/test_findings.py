"""What a report finds, and the verdict that it comes to."""

from __future__ import annotations

from typing import Any

import pytest

from refine.deployment.folder import Agreement
from refine.deployment.labeled import Accuracy
from refine.evaluation.metrics import interval
from refine.proof.judging.verdict import SignResult, SignsResult
from refine.proof.page.content import Finding
from refine.proof.report import blocks, findings
from refine.proof.stress.result import Images, Measured, Plant, Rate, Spent, StressResult

GOOD, OPEN, BAD = (Finding(tone=tone, text=tone) for tone in ("good", "open", "bad"))


def measured(asr: float) -> Measured:
    shares = {"attack_success_rate": asr, "target_without_trigger": 0.1, "agreement": 0.97, "robust_agreement": 0.9}
    return Measured(
        **{name: Rate(share=share, interval_95=interval(share, 200), images=200) for name, share in shares.items()}
    )


def plant(name: str, floor: float, after: float | None) -> Plant:
    known = set(Plant.model_fields)
    content: dict[str, Any] = {
        "name": name,
        "attack": "badnets",
        "settings": {},
        "seed": 1,
        "target": "cat",
        "target_label": 0,
        "poisoned": 20,
        "took": after is not None,
        "model": measured(floor),
        "before": measured(0.96),
        "after": None if after is None else measured(after),
        "seconds": Spent(planting=1.0, measuring=1.0),
    }
    return Plant.model_construct(**{name: value for name, value in content.items() if name in known})


def stress(*plants: Plant) -> StressResult:
    return StressResult.model_construct(
        images=Images(planting=50, defending=100, measuring=50, sha256="0" * 64), plants=list(plants), seconds=60.0
    )


def signs(*decisions: str) -> SignsResult:
    made = [
        SignResult.model_construct(
            title=f"sign {number}",
            meaning="it means",
            decision=decision,
            reason="so",
            suspicious_classes=["cat"],
            alarms=None,
        )
        for number, decision in enumerate(decisions)
    ]
    return SignsResult.model_construct(signs=made, images=100, calibrated_on="nothing")


@pytest.mark.parametrize(("same", "tone"), [(95, "good"), (94, "open"), (90, "open"), (89, "bad")])
def test_agreement_is_told_with_its_interval(same: int, tone: str) -> None:
    found = findings.of_agreement(Agreement(images=100, same=same))
    assert found.tone == tone
    assert f"{same}.0 % of 100 (95 % interval {100 * interval(same / 100, 100)[0]:.1f} to" in found.text


@pytest.mark.parametrize(("defended", "tone"), [(901, "good"), (880, "good"), (850, "open"), (849, "bad")])
def test_accuracy_is_judged_by_its_drop(defended: int, tone: str) -> None:
    found = findings.of_accuracy(Accuracy(images=1000, delivered=900, defended=defended))
    assert found.tone == tone
    assert f"right on 90.0 % of 1,000 (95 % interval {100 * interval(0.9, 1000)[0]:.1f} to" in found.text
    assert f"the defended one on {defended / 10:.1f} % of 1,000" in found.text


@pytest.mark.parametrize(
    ("images", "delivered", "decides"), [(200, 180, True), (199, 180, False), (200, 99, False), (200, 100, True)]
)
def test_few_labeled_photos_or_wrong_labels_decide_nothing(images: int, delivered: int, decides: bool) -> None:
    accuracy, agreement = Accuracy(images, delivered, delivered), Agreement(images=100, same=50)
    assert (findings.of_accuracy(accuracy).tone == "good") is decides
    assert (findings.of_work(accuracy, agreement).tone == "good") is decides
    assert findings.of_work(None, agreement).tone == "bad"


def test_a_backdoor_that_stays_is_named_and_the_worst_one_told() -> None:
    found = findings.of_stress(stress(plant("patch", 0.01, 0.02), plant("warp", 0.02, 0.5), plant("blend", 0.01, None)))
    assert found.tone == "bad"
    assert found.text.startswith("2 of 3 known backdoors")
    assert "did not remove warp" in found.text
    assert "at most 50.0 % after it" in found.text


def test_a_trigger_that_works_no_better_than_without_a_backdoor_is_gone() -> None:
    assert findings.of_stress(stress(plant("warp", 0.10, 0.14))).tone == "good"
    assert findings.of_stress(stress(plant("warp", 0.10, 0.16))).tone == "bad"


def test_where_nothing_could_be_planted_nothing_is_claimed() -> None:
    for found in (findings.of_stress(stress(plant("patch", 0.0, None))), findings.of_stress(None)):
        assert found.tone == "open"
        assert "nothing shows here" in found.text


@pytest.mark.parametrize(
    ("decisions", "tone", "words"),
    [
        (("suspicious", "abstains"), "bad", "1 of 2 signs say"),
        (("nothing found", "abstains"), "open", "None of the 1 signs that allow a judgment"),
        (("abstains", "abstains"), "open", "do not allow a judgment"),
    ],
)
def test_signs_never_call_a_model_clean(decisions: tuple[str, ...], tone: str, words: str) -> None:
    found = findings.of_signs(signs(*decisions))
    assert (found.tone, words in found.text) == (tone, True)
    assert findings.of_signs(None).tone == "open"


@pytest.mark.parametrize(
    ("agreement", "tested", "tone", "words"),
    [
        (GOOD, GOOD, "good", "Use the defended model"),
        (OPEN, GOOD, "good", "Use the defended model"),
        (GOOD, OPEN, "open", "holds no proof"),
        (GOOD, BAD, "bad", "Do not rely"),
        (BAD, GOOD, "bad", "too far from"),
    ],
)
def test_the_verdict_is_as_good_as_its_worst_part(agreement: Finding, tested: Finding, tone: str, words: str) -> None:
    found = findings.verdict(agreement, tested, OPEN)
    assert found.tone == tone
    assert words in found.text
    assert "do not use it undefended" not in found.text
    assert "do not use it undefended" in findings.verdict(agreement, tested, BAD).text


def test_tables_have_a_cell_in_each_column() -> None:
    tables = (
        blocks.of_stress(stress(plant("patch", 0.01, 0.02), plant("other", 0.01, None))).table,
        blocks.of_signs(signs("abstains", "suspicious")).table,
    )
    for table in tables:
        assert table is not None
        assert len(table.rows) == 2
        assert all(len(row) == len(table.columns) for row in table.rows)
