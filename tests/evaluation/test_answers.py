"""Every test image is answered once, in any batch, and by the system that was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from refine.defending.protocol.defense import NoDefense
from refine.evaluation.answers import answers, answers_of_all, predictions, probabilities
from refine.evaluation.test_sets import TestSets
from systems import Mirrored, Negative
from tiny import CPU, attack, classifier, defense, poisoned, raw

CLASSES = 3


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> TestSets:
    """24 test images, 16 of them triggered."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw", images=48, classes=CLASSES)
    made = poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0]), clean)
    return TestSets(made.test, made.triggered_test)


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_every_image_gets_the_same_answer_in_any_batch(tests: TestSets, batch_size: int) -> None:
    defended = defense(classifier())
    whole, parts = (answers(defended, tests, size, CPU) for size in (24, batch_size))
    assert parts.benign.shape == parts.likelihood.shape == (24,)
    assert parts.triggered.shape == (16,)
    assert parts.best is None
    torch.testing.assert_close(parts.likelihood, whole.likelihood, rtol=1e-4, atol=1e-5)
    given = probabilities(defended, tests.clean, batch_size, CPU)
    torch.testing.assert_close(parts.likelihood, given.gather(1, tests.clean.labels[:, None])[:, 0])
    assert torch.equal(parts.benign, given.argmax(dim=1))
    assert torch.equal(parts.triggered, predictions(defended, tests.triggered, batch_size, CPU))


@torch.no_grad()
def test_raw_answers_are_those_of_the_classifier_inside(tests: TestSets) -> None:
    defended = defense(classifier())
    inside = defended.logits(defended.transformed(tests.triggered.images.float() / 255)).argmax(dim=1)
    found = answers(defended, tests, 8, CPU)
    assert found.raw_triggered is not None
    assert torch.equal(found.raw_triggered, inside)
    assert not torch.equal(found.triggered, inside)


@pytest.mark.parametrize("kind", [NoDefense, Mirrored, Negative])
def test_without_a_label_map_there_are_no_raw_answers(
    tests: TestSets, kind: type[NoDefense | Mirrored | Negative]
) -> None:
    assert answers(kind(classifier()), tests, 8, CPU).raw_triggered is None


@torch.no_grad()
def test_each_system_gives_its_own_answers_under_its_name(tests: TestSets) -> None:
    bare = classifier()
    found = answers_of_all({"no_defense": NoDefense(bare), "negative": Negative(bare)}, tests, 5, CPU)
    assert list(found) == ["no_defense", "negative"]
    for split, name in ((tests.clean, "benign"), (tests.triggered, "triggered")):
        pixels = split.images.float() / 255
        for system, seen in (("no_defense", pixels), ("negative", 1 - pixels)):
            assert torch.equal(getattr(found[system], name), bare(seen).argmax(dim=1))


def test_of_no_triggered_image_there_are_no_answers(tests: TestSets) -> None:
    none = replace(tests.triggered, images=tests.triggered.images[:0])
    found = answers(defense(classifier()), TestSets(tests.clean, none), 8, CPU)
    assert found.triggered.shape == (0,)
    assert found.raw_triggered is not None
    assert found.raw_triggered.shape == (0,)
