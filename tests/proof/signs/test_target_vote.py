"""Target vote: changed images fall into the class that a pixel forces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import backdoored
import tiny
from refine.proof.signs.target_vote import Alteration, Params, decoupled, look, vote

FEW = Params(steps=40, batch_size=16, least_images=20, channels=8, rounds=2, image_bound=0.1)
TARGET = f"class-{backdoored.TARGET}"


def test_changed_images_fall_into_the_class_that_a_pixel_forces() -> None:
    attacked, clean = (look(backdoored.subject(strength), FEW, seed=1) for strength in (60.0, 0.0))
    assert attacked.weak is None
    assert max(attacked.scores, key=lambda name: attacked.scores[name]) == TARGET
    assert attacked.scores[TARGET] > 0.9
    assert clean.score is not None
    assert clean.score < 0.6


def test_the_mask_keeps_what_the_answers_rest_on() -> None:
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.cat([5 * torch.eye(3)[labels], torch.rand(60, 5)], dim=1)
    head = nn.Linear(8, 3)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, 8))
        head.bias.zero_()
    mask = decoupled(features, labels, head, Params(), torch.Generator().manual_seed(1))
    assert mask[:3].min() > 0.5 > mask[3:].max()
    assert ((mask > 0) & (mask < 1)).all()


def test_no_image_changes_by_more_than_the_bound() -> None:
    torch.manual_seed(0)
    largest = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    made, pixels = Alteration(8, 12, largest), torch.rand(4, 3, 12, 12)
    with torch.no_grad():
        made.outlet.weight.mul_(1000)
        changed = made(pixels)
    size = ((changed - pixels) / largest).square().mean(dim=(1, 2, 3))
    assert size.max() <= 1 + 1e-4
    assert size.min() > 0.9
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6


def test_votes_are_shares_of_the_images_of_other_classes() -> None:
    before, after = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 0, 0])
    assert vote(before, after, 3).tolist() == pytest.approx([1.0, 1 / 3, 0.0])


def test_the_same_seed_gives_the_same_finding() -> None:
    short, subject = FEW.model_copy(update={"steps": 5}), backdoored.subject(60.0)
    state = torch.random.get_rng_state()
    assert look(subject, short, seed=1) == look(subject, short, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_abstains_without_a_linear_layer_at_the_end() -> None:
    subject = backdoored.subject(0.0)
    network = subject.classifier.network
    bare = replace(subject, classifier=tiny.classifier())
    bare.classifier.network.head = nn.Sequential(nn.Linear(64, 3))
    assert isinstance(network.head, nn.Linear)
    assert "no linear layer" in str(look(bare, FEW, seed=1).weak)


def test_it_abstains_if_hardly_any_image_moves() -> None:
    finding = look(backdoored.subject(0.0), FEW.model_copy(update={"image_bound": 1e-6, "steps": 2}), seed=1)
    assert "of the images changed their class" in str(finding.weak)
