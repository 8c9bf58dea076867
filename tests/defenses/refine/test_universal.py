"""Training against a pattern that is the same in all images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.training.encoder import train_encoder
from refine.defenses.refine.training.universal import Universal
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, classifier, defense, refine_params, same_tensors

BOUND = 0.05
ENCODER = {"epochs": 3, "batch_size": 8, "optimizer": {"lr": 0.05}, "augment": {"flip": 0.5}, "learns": "labels"}


def _universal() -> Universal:
    made = Universal(BOUND, Generator().manual_seed(1))
    made.begin()
    return made


def _patterns(universal: Universal, count: int = 64) -> Tensor:
    """The different changes of images, float [M, 3, 4, 4]."""
    pixels = torch.full((count, 3, 4, 4), 0.5)
    return (universal.added(pixels) - pixels).detach().unique(dim=0)


def test_half_of_the_images_have_one_pattern_within_the_bound() -> None:
    pixels = torch.rand(400, 3, 4, 4)
    changes = (_universal().added(pixels) - pixels).detach()
    has = changes.abs().amax(dim=(1, 2, 3)) > 0
    assert 150 < has.sum() < 250
    assert torch.allclose(changes[has], changes[has][:1], atol=1e-6)
    assert 0.9 * BOUND < changes.abs().max() <= BOUND + 1e-6


def test_it_moves_to_where_the_loss_grows_and_no_further_than_the_bound() -> None:
    universal = _universal()
    for _ in range(12):
        universal.added(torch.rand(64, 3, 4, 4)).sum().backward()  # type: ignore[no-untyped-call]
        universal.follow()
    assert torch.allclose(_patterns(universal)[-1], torch.full((3, 4, 4), BOUND), atol=1e-6)


def test_each_epoch_begins_with_a_new_one() -> None:
    universal = _universal()
    first = _patterns(universal)
    assert len(first) == 2
    assert torch.equal(_patterns(universal), first)
    universal.begin()
    assert not torch.equal(_patterns(universal), first)


def test_without_a_loss_there_is_nowhere_to_go() -> None:
    with pytest.raises(RuntimeError, match="no loss"):
        _universal().follow()


def _encoder(monkeypatch: pytest.MonkeyPatch | None = None, **changes: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The encoder after its training, and the images that the classifier was asked about."""
    asked: list[Tensor] = []
    real = PseudoLabels.of
    made = defense(classifier())
    params = refine_params(encoder={**ENCODER, **changes}, pseudo_labels="each_step")
    assert params.encoder is not None
    images = synthetic(48)[0]
    answers = PseudoLabels(made.classifier, params.recipe, False, CPU, "fp32")
    if monkeypatch:
        monkeypatch.setattr(PseudoLabels, "of", lambda self, pixels: asked.append(pixels) or real(self, pixels))
    head = made.transform.begin(made.classifier, 3, lambda: images)
    train_encoder(params.encoder, 1, made, head, Resident(images, ()), answers, CPU, None)
    return {name: tensor.clone() for name, tensor in made.transform.state_dict().items()}, asked


def test_the_encoder_learns_otherwise_and_again_the_same() -> None:
    plain, hard, again = (_encoder(universal=bound)[0] for bound in (0.0, BOUND, BOUND))
    assert same_tensors(hard, again)
    assert not same_tensors(hard, plain)


def test_the_classifier_is_asked_about_images_without_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = torch.cat(_encoder(monkeypatch, universal=BOUND)[1]) * 255
    assert torch.allclose(asked, asked.round(), atol=1e-3)
    assert not asked.requires_grad
