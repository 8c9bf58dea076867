"""Answers that a defended model changes: images with a trigger come from one class, of which the model was sure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import backdoored
from refine.proof.signs.changed_answers import Params, concentration, look


def _of(labels: Tensor, sureness: Tensor, classes: int = 6) -> Tensor:
    """Probabilities of these answers, float [N, classes]."""
    rest = ((1 - sureness) / (classes - 1)).unsqueeze(1).expand(-1, classes).clone()
    return rest.scatter(1, labels.unsqueeze(1), sureness.unsqueeze(1))


def test_sure_answers_of_one_class_that_change_are_concentrated() -> None:
    predicted = torch.arange(120) % 6
    sureness = torch.linspace(0.5, 0.99, 120)
    changed = (predicted == 2) & (sureness > 0.8)
    scores = concentration(predicted, sureness, changed, 6, least=10)
    assert max(scores, key=lambda label: scores[label]) == 2
    assert scores[2] == pytest.approx(changed.sum().item() / 20)


def test_answers_that_the_model_was_not_sure_of_do_not_count() -> None:
    predicted = torch.arange(120) % 6
    sureness = torch.linspace(0.5, 0.99, 120)
    assert set(concentration(predicted, sureness, sureness < 0.7, 6, least=10).values()) == {0.0}
    assert concentration(predicted, sureness, sureness < 0.7, 6, least=21) == {}


def test_images_are_listed_by_what_their_class_lost() -> None:
    subject = backdoored.subject(0.0)
    predicted = torch.arange(120) % 6
    before = _of(predicted, torch.full((120,), 0.9))
    answers, sureness = predicted.clone(), torch.full((120,), 0.8)
    answers[7], answers[20] = 0, 0
    sureness[7], sureness[20] = 0.6, 0.95
    finding = look(
        replace(subject, probabilities=before, defended_probabilities=_of(answers, sureness)), Params(), seed=1
    )
    assert [(each.image, each.before, each.after) for each in finding.changed] == [
        ("20.png", "class-2", "class-0"),
        ("7.png", "class-1", "class-0"),
    ]
    assert finding.changed[0].before_probability == pytest.approx(0.9, abs=1e-4)
    assert finding.figures["changed"] == 2


@pytest.mark.parametrize("told", ["no defended model", "all answers changed", "images are fewer"])
def test_it_abstains(told: str) -> None:
    subject = backdoored.subject(0.0)
    other = subject.probabilities.roll(1, dims=1)
    defended = {"no defended model": None, "all answers changed": other}.get(told, subject.probabilities)
    params = Params(least_images=121) if told == "images are fewer" else Params()
    assert told in str(look(replace(subject, defended_probabilities=defended), params, seed=1).weak)
