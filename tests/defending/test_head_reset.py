"""The last layer that is drawn anew: its length, and what is measured of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from finetuned import ARCHITECTURES, after_each_step, of_architecture, task
from refine.core.errors import UserError
from refine.defending.finetuning import cross_entropy, labeled_images
from refine.defending.head_reset import Head, HeadReset
from refine.defending.retraining import trainable
from refine.models.classifier import Classifier
from tiny import CPU, classifier, classifier_card


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_after_each_step_the_weights_have_their_former_length(tmp_path: Path, architecture: str) -> None:
    recipe = {"epochs": 4, "batch_size": 4, "optimizer": {"lr": 0.3, "weight_decay": 0.0}}
    given = task(tmp_path, "fst", {"recipe": recipe}, architecture)
    made = trainable(given)
    head = Head(made, "fst")
    length = head.given.norm().item()
    head.draw(1.0, 1, bias=True)
    assert head.weight.norm().item() != pytest.approx(length, rel=1e-3)
    retraining = HeadReset(head, made, labeled_images(given), given.settings.recipe, cross_entropy, CPU)
    seen = after_each_step(retraining, lambda: (head.weight.norm().item(), head.distance().item()))
    assert len(seen) == 12
    assert [norm for norm, _ in seen] == pytest.approx([length] * 12, rel=1e-5)
    assert all(distance <= 2 * length * (1 + 1e-5) for _, distance in seen)
    assert len({distance for _, distance in seen}) == 12


def test_what_is_drawn_is_uniform_and_of_its_seed() -> None:
    heads = [Head(classifier().requires_grad_(True), "d3") for _ in range(3)]
    for head, seed, bias in zip(heads, (1, 1, 2), (True, False, True), strict=True):
        head.draw(0.5, seed, bias)
    weight = heads[0].weight
    assert torch.equal(weight, heads[1].weight)
    assert not torch.equal(weight, heads[2].weight)
    assert weight.abs().max() <= 0.5
    assert weight.std().item() == pytest.approx(1 / 12**0.5, rel=0.2)
    assert weight.mean().item() == pytest.approx(0, abs=0.1)
    before = classifier().network.get_parameter("head.bias")
    assert heads[1].bias is not None
    assert heads[0].bias is not None
    assert torch.equal(heads[1].bias, before)
    assert not torch.equal(heads[0].bias, before)
    assert heads[0].bias.abs().max() <= 0.5


def test_a_head_without_bias_has_none_to_draw() -> None:
    head = Head(of_architecture("airbench").requires_grad_(True), "fst")
    assert head.bias is None
    head.draw(0.5, 1, bias=True)
    assert head.weight.abs().max() <= 0.5


def test_alignment_distance_and_cosine_of_the_given_and_the_opposite() -> None:
    head = Head(classifier().requires_grad_(True), "d3")
    length = head.given.norm()
    with torch.no_grad():
        head.weight.mul_(-3)
    head.project()
    torch.testing.assert_close(head.weight.detach(), -head.given)
    torch.testing.assert_close(head.alignment(), -(length**2))
    torch.testing.assert_close(head.distance(), 2 * length)
    torch.testing.assert_close(head.cosine(), torch.tensor(-1.0))


def test_a_network_without_a_linear_head_is_refused() -> None:
    with pytest.raises(UserError, match="fst needs an architecture whose last layer is linear and called head"):
        Head(Classifier(nn.Sequential(nn.Conv2d(3, 3, 1)), classifier_card().normalization), "fst")
