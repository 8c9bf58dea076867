"""Every figure against a slow, obvious count."""

from __future__ import annotations

import math

import pytest
import torch

from refine.evaluation.metrics import Answers, Truth, measure

TRIGGER_FIGURES = {"attack_success_rate", "asr_floor", "robust_accuracy", "raw_target_hit"}


def _case(classes: int, target: int = 0, seed: int = 0) -> tuple[Answers, Truth]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (60,), generator=generator)
    rows = (labels != target).nonzero().flatten()
    answers = Answers(
        benign=torch.rand(60, classes, generator=generator).softmax(dim=1),
        triggered=torch.rand(len(rows), classes, generator=generator).softmax(dim=1),
        raw_triggered=torch.randint(0, classes, (len(rows),), generator=generator),
    )
    return answers, Truth(labels, rows, torch.full((len(rows),), target))


@pytest.mark.parametrize("classes", [3, 10])
def test_all_figures_are_those_of_a_loop_over_images(classes: int) -> None:
    answers, truth = _case(classes)
    said = [int(torch.argmax(row)) for row in answers.benign]
    fooled = [int(torch.argmax(row)) for row in answers.triggered]
    labels = truth.labels.tolist()
    clean = truth.clean_rows.tolist()
    expected = {
        "benign_accuracy": sum(a == b for a, b in zip(said, labels, strict=True)) / 60,
        "benign_nll": sum(-math.log(answers.benign[i, labels[i]]) for i in range(60)) / 60,
        "attack_success_rate": sum(answer == 0 for answer in fooled) / len(clean),
        "asr_floor": sum(said[row] == 0 for row in clean) / len(clean),
        "robust_accuracy": sum(a == labels[row] for a, row in zip(fooled, clean, strict=True)) / len(clean),
        "raw_target_hit": sum(answer == 0 for answer in answers.raw_triggered.tolist()) / len(clean),
    }
    if classes > 5:
        best = [sorted(range(classes), key=lambda k: -row[k])[:5] for row in answers.benign.tolist()]
        expected["top5_accuracy"] = sum(labels[i] in best[i] for i in range(60)) / 60
    assert measure(answers, truth) == pytest.approx(expected, abs=1e-6)


def test_top5_is_absent_where_it_would_always_be_one() -> None:
    assert "top5_accuracy" not in measure(*_case(5))
    assert "top5_accuracy" in measure(*_case(6))


def test_without_triggered_images_no_trigger_figure_is_given() -> None:
    answers, truth = _case(10)
    none = Answers(answers.benign, answers.triggered[:0], answers.raw_triggered[:0])
    figures = measure(none, Truth(truth.labels, truth.clean_rows[:0], truth.given[:0]))
    assert set(figures) == {"benign_accuracy", "benign_nll", "top5_accuracy"}


def test_a_probability_of_zero_costs_a_finite_amount() -> None:
    wrong = torch.tensor([[1.0, 0.0]])
    empty = torch.zeros(0, dtype=torch.int64)
    figures = measure(Answers(wrong, wrong[:0], empty), Truth(torch.tensor([1]), empty, empty))
    assert figures["benign_nll"] == pytest.approx(-math.log(1e-12), abs=1e-6)


def test_figures_have_six_decimals() -> None:
    figures = measure(*_case(7, seed=3))
    assert set(figures) >= TRIGGER_FIGURES
    assert all(value == round(value, 6) for value in figures.values())
