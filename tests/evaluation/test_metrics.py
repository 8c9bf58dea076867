"""Figures against loops that look at one image at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor

from refine.evaluation.metrics import Answers, Truth, der, diagnose, interval, judged, measure, misread, summed_up

TRIGGERED = {"attack_success_rate", "asr_floor_clean", "robust_accuracy", "raw_target_hit"}
DIAGNOSTICS = {"benign_nll", "top5_accuracy", "raw_target_hit"}
"""Figures that `diagnose` gives; all others are shares that a system is judged by."""


@dataclass(frozen=True)
class Said:
    """Probabilities that a system gives, and what the classifier inside answers before a label map."""

    benign: Tensor
    triggered: Tensor
    raw_triggered: Tensor | None = None

    def kept(self, truth: Truth) -> Answers:
        """What the figures are made of."""
        return Answers(*summed_up(self.benign, truth.labels), self.triggered.argmax(dim=1), self.raw_triggered)


def _slowly(answers: Said, truth: Truth) -> dict[str, float]:
    """Every definition, image by image."""

    def top(row: list[float], count: int = 1) -> list[int]:
        return sorted(range(len(row)), key=lambda place: -row[place])[:count]

    benign, labels = answers.benign.tolist(), truth.labels.tolist()
    figures = {
        "benign_accuracy": sum(top(row)[0] == label for row, label in zip(benign, labels, strict=True)) / len(labels),
        "benign_nll": sum(-math.log(max(row[y], 1e-12)) for row, y in zip(benign, labels, strict=True)) / len(labels),
    }
    if len(benign[0]) > 5:
        figures["top5_accuracy"] = sum(y in top(row, 5) for row, y in zip(benign, labels, strict=True)) / len(labels)
    hits = dict.fromkeys(TRIGGERED, 0)
    for place, target in enumerate(truth.given.tolist()):
        clean = int(truth.clean_rows[place])
        said = top(answers.triggered[place].tolist())[0]
        hits["attack_success_rate"] += said == target
        hits["asr_floor_clean"] += top(benign[clean])[0] == target
        hits["robust_accuracy"] += said == labels[clean]
        if answers.raw_triggered is not None:
            hits["raw_target_hit"] += int(answers.raw_triggered[place]) == target
    if len(truth.given):
        figures |= {name: count / len(truth.given) for name, count in hits.items()}
    return figures


def _case(classes: int, count: int, seed: int, target: int = 0) -> tuple[Said, Truth]:
    """Random answers to a test set whose images of other classes than the target are triggered."""
    generator = torch.Generator().manual_seed(seed)

    def scores(rows: int) -> Tensor:
        return (3 * torch.randn(rows, classes, generator=generator)).softmax(dim=1)

    labels = torch.randint(0, classes, (count,), generator=generator)
    clean_rows = (labels != target).nonzero().flatten()
    raw = torch.randint(0, classes, (len(clean_rows),), generator=generator)
    truth = Truth(labels, clean_rows, torch.full((len(clean_rows),), target))
    return Said(scores(count), scores(len(clean_rows)), raw), truth


@settings(max_examples=80, deadline=None, derandomize=True)
@given(classes=st.integers(2, 12), count=st.integers(1, 60), seed=st.integers(0, 10_000), data=st.data())
def test_every_figure_is_its_definition(classes: int, count: int, seed: int, data: st.DataObject) -> None:
    said, truth = _case(classes, count, seed, data.draw(st.integers(0, classes - 1)))
    answers = said.kept(truth)
    shares, diagnosed, expected = measure(answers, truth), diagnose(answers, truth), _slowly(said, truth)
    assert set(shares) == set(expected) - DIAGNOSTICS
    assert set(diagnosed) == set(expected) & DIAGNOSTICS
    for name, value in {**shares, **diagnosed}.items():
        assert value == pytest.approx(expected[name], abs=1.1e-6), name
        assert value == round(value, 6)
        assert math.isfinite(value)
        assert value >= 0
        assert name == "benign_nll" or value <= 1


def test_attack_success_is_counted_over_triggered_images_alone() -> None:
    labels = torch.arange(10)
    truth = Truth(labels, torch.arange(1, 10), torch.zeros(9, dtype=torch.int64))
    triggered = torch.eye(10)[[0, 0, 0, 4, 5, 6, 7, 8, 9]]
    answers = Said(torch.eye(10), triggered, torch.zeros(9, dtype=torch.int64)).kept(truth)
    assert measure(answers, truth) == {
        "benign_accuracy": 1,
        "attack_success_rate": round(3 / 9, 6),
        "asr_floor_clean": 0,
        "robust_accuracy": round(6 / 9, 6),
    }
    assert diagnose(answers, truth)["raw_target_hit"] == 1


def test_the_denominator_is_nine_tenths_of_a_balanced_test_set() -> None:
    labels = torch.arange(10_000) % 10
    rows = (labels != 0).nonzero().flatten()
    assert len(rows) == 9_000
    triggered = torch.zeros(9_000, 10)
    triggered[0, 0] = 1
    triggered[1:, 1] = 1
    given_label = torch.zeros(9_000, dtype=torch.int64)
    truth = Truth(labels, rows, given_label)
    figures = measure(Said(torch.eye(10)[labels], triggered).kept(truth), truth)
    assert figures["attack_success_rate"] == round(1 / 9_000, 6)


def test_each_triggered_image_is_held_against_its_own_clean_image_and_its_own_given_label() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    truth = Truth(labels, torch.tensor([3, 1]), torch.tensor([1, 2]))
    benign = torch.eye(3)[[0, 2, 2, 1]]
    triggered = torch.eye(3)[[1, 1]]
    answers = Said(benign, triggered, torch.tensor([0, 2])).kept(truth)
    figures = measure(answers, truth)
    assert figures["asr_floor_clean"] == 1
    assert figures["attack_success_rate"] == 0.5
    assert figures["robust_accuracy"] == 0.5
    assert diagnose(answers, truth)["raw_target_hit"] == 0.5


def test_raw_hits_tell_that_the_trigger_fires_behind_the_label_map() -> None:
    said, truth = _case(10, 50, 0)
    hidden = torch.zeros_like(said.triggered)
    hidden[:, 5] = 1
    answers = Said(said.benign, hidden, torch.zeros(len(hidden), dtype=torch.int64)).kept(truth)
    assert measure(answers, truth)["attack_success_rate"] == 0
    assert diagnose(answers, truth)["raw_target_hit"] == 1


def test_a_system_without_a_label_map_has_no_raw_hits() -> None:
    said, truth = _case(10, 50, 0)
    assert set(diagnose(replace(said, raw_triggered=None).kept(truth), truth)) == {"benign_nll", "top5_accuracy"}


@pytest.mark.parametrize(("classes", "there"), [(2, False), (5, False), (6, True), (10, True)])
def test_top_five_needs_more_than_five_classes(classes: int, there: bool) -> None:
    said, truth = _case(classes, 40, 0)
    assert ("top5_accuracy" in diagnose(said.kept(truth), truth)) is there


def test_without_triggered_images_there_is_no_figure_of_the_trigger() -> None:
    said, truth = _case(3, 30, 0)
    empty = torch.zeros(0, dtype=torch.int64)
    truth = Truth(truth.labels, empty, empty)
    answers = Said(said.benign, torch.zeros(0, 3), empty).kept(truth)
    shares = measure(answers, truth)
    assert set(shares) == {"benign_accuracy"}
    assert set(diagnose(answers, truth)) == {"benign_nll"}
    own = interval(shares["benign_accuracy"], 30)
    assert judged(shares, shares, truth) == {**shares, "interval_95": {"benign_accuracy": own}}


def _nll(probability: float) -> Any:
    row = torch.tensor([[probability, 1 - probability]])
    empty = torch.zeros(0, dtype=torch.int64)
    truth = Truth(torch.tensor([0]), empty, empty)
    return diagnose(Said(row, torch.zeros(0, 2)).kept(truth), truth)["benign_nll"]


def test_an_impossible_label_costs_the_floor_and_not_infinity() -> None:
    assert _nll(0.0) == round(-math.log(1e-12), 6)
    assert _nll(1e-6) == pytest.approx(13.815511, abs=1e-5)


def test_certainty_costs_nothing_and_is_not_written_as_minus_zero() -> None:
    assert str(_nll(1.0)) == "0.0"


def test_misreadings_name_the_five_most_frequent_classes_and_leave_out_right_answers_and_hits() -> None:
    behind, given = 1, 0
    said = torch.tensor([behind] * 3 + [given] * 4 + [7] * 2 + [2] * 5 + [3, 4, 5, 6])
    truth = Truth(torch.tensor([given, behind]), torch.ones(len(said), dtype=torch.int64), torch.full_like(said, given))
    told = misread(said, truth, [f"class {label}" for label in range(10)])
    assert told[:2] == [{"as": "class 2", "share": round(5 / 18, 6)}, {"as": "class 7", "share": round(2 / 18, 6)}]
    assert [each["as"] for each in told[2:]] == ["class 3", "class 4", "class 5"]
    assert misread(said[:7], Truth(truth.labels, truth.clean_rows[:7], truth.given[:7]), ["a", "b"]) == []


# -- what stands in a system's file


@settings(max_examples=200, deadline=None, derandomize=True)
@given(count=st.integers(1, 20_000), data=st.data())
def test_an_interval_is_wilsons(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count) | st.sampled_from((0, count)))
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    found = interval(round(hits / count, 6), count)
    assert found == pytest.approx([expected.low, expected.high], abs=2e-6)
    assert found == [round(bound, 6) for bound in found]
    assert 0 <= found[0] <= hits / count + 1e-6
    assert hits / count - 1e-6 <= found[1] <= 1


def test_an_interval_of_no_hit_begins_at_nothing_and_one_of_all_ends_at_all() -> None:
    assert str(interval(0.0, 900)[0]) == "0.0"
    assert str(interval(1.0, 900)[1]) == "1.0"
    assert interval(0.0, 900)[1] == pytest.approx(1 - interval(1.0, 900)[0], abs=1e-6)


def _shares(ba: float, asr: float) -> dict[str, float]:
    return {"benign_accuracy": ba, "attack_success_rate": asr}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (_shares(0.92, 0.99), _shares(0.90, 0.01), 0.98),  # (0.98 - 0.02 + 1) / 2
        (_shares(0.92, 0.99), _shares(0.92, 0.99), 0.5),  # no effect
        (_shares(0.92, 1.0), _shares(0.92, 0.0), 1.0),
        (_shares(0.92, 1.0), _shares(0.95, 0.0), 1.0),  # a gain of accuracy is worth nothing
        (_shares(0.92, 0.5), _shares(0.92, 0.8), 0.5),  # neither is a stronger attack
        (_shares(0.9, 0.2), _shares(0.6, 0.4), 0.35),  # (0 - 0.3 + 1) / 2
        (_shares(1.0, 0.0), _shares(0.0, 0.0), 0.0),
    ],
)
def test_the_rating_by_hand(before: dict[str, float], after: dict[str, float], expected: float) -> None:
    assert der(before, after) == pytest.approx(expected, abs=1e-9)


SHARE = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(before=st.builds(_shares, SHARE, SHARE), after=st.builds(_shares, SHARE, SHARE))
def test_the_rating_is_a_share_which_only_a_fall_of_the_attack_raises(
    before: dict[str, float], after: dict[str, float]
) -> None:
    rating = der(before, after)
    assert 0 <= rating <= 1
    assert rating == round(rating, 6)
    assert der(before, before) == 0.5
    assert rating <= 0.5 or after["attack_success_rate"] < before["attack_success_rate"]
    assert rating >= 0.5 or after["benign_accuracy"] < before["benign_accuracy"]


def test_a_file_holds_each_share_its_interval_over_its_own_images_and_the_rating() -> None:
    before, truth = _case(10, 60, 0)
    after = Said(before.benign.roll(1, 0), before.triggered.roll(1, 0))
    bare, own = measure(before.kept(truth), truth), measure(after.kept(truth), truth)
    assert bare != own
    benign, triggered = 60, len(truth.given)
    assert triggered < benign
    expected = {
        **own,
        "der": der(bare, own),
        "interval_95": {name: interval(own[name], benign if name == "benign_accuracy" else triggered) for name in own},
    }
    assert judged(bare, own, truth) == expected
    assert judged(bare, bare, truth)["der"] == 0.5
    assert list(judged(bare, bare, truth)) == list(judged(bare, own, truth))
