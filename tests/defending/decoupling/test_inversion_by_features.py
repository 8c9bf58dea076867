"""Decoupling features: what a mask keeps, when the generator may move, and who is held for the target."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetuned import ARCHITECTURES, of_architecture, state, task
from refine.core.errors import UserError
from refine.defending.decoupling.inside import Inside
from refine.defending.decoupling.inversion import Inversion
from refine.defending.decoupling.params import DecouplingParams
from refine.defending.decoupling.terms import Mask, generator_terms, mask_terms
from refine.defending.decoupling.unet import UNet
from refine.defending.finetuning import labeled_images
from refine.defending.retraining import trainable
from refine.models import classifier as classifiers
from refine.models.architecture import from_text
from refine.models.classifier import Classifier, Normalization
from tiny import same_tensors

PLAIN = Normalization(mean=[0.0] * 3, std=[1.0] * 3)
FEW: dict[str, Any] = {"epochs": 1, "batch_size": 6, "optimizer": {"name": "adamw", "lr": 0.001}}
BRIEF: dict[str, Any] = {
    "rounds": 2,
    "first_channels": 8,
    "pretraining": FEW,
    "mask": {**FEW, "optimizer": {"name": "adamw", "lr": 0.1}},
    "generator": FEW,
    "recipe": FEW,
}


def test_published_settings() -> None:
    params = DecouplingParams()
    assert (params.rounds, params.first_channels, params.noise, params.generated) == (5, 32, 0.03, 0.1)
    assert (params.image_bound, params.feature_bound) == (0.3, 3.0)
    assert [each.epochs for each in (params.pretraining, params.mask, params.generator)] == [50, 20, 30]
    assert [each.optimizer.lr for each in (params.pretraining, params.mask, params.generator)] == [1e-3, 0.01, 1e-3]


@pytest.mark.parametrize("side", [16, 32, 33, 224])
def test_the_u_net_takes_images_of_every_side(side: int) -> None:
    torch.manual_seed(0)
    made = UNet(2, side)
    assert len(made.down) == (3 if side == 16 else 4)
    with torch.no_grad():
        assert made(torch.rand(1, 3, side, side)).shape == (1, 3, side, side)


def test_the_u_net_has_the_published_size() -> None:
    """Without the parameters of a branch of the official code that is never called."""
    with torch.device("meta"):
        assert sum(each.numel() for each in UNet(32, 32).parameters()) == 10_987_011


class Blocks(nn.Module):
    """Channel 0 of the last map says the class, channel 1 sends images to class 0 if it is bright; the head adds."""

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.last(images)
        seen = maps.mean(dim=(2, 3))
        return torch.stack([-seen[:, 0] + 4 * seen[:, 1], seen[:, 0]], dim=1) * 4

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.weight[0, 0] = self.last.weight[1, 1] = 1.0


def test_the_mask_keeps_what_clean_images_need() -> None:
    """Channel 0 tells the class; channel 1 is noise that clean images do not need."""
    classifier = Classifier(Blocks(), Normalization(mean=[0.0] * 3, std=[1.0] * 3)).eval().requires_grad_(False)
    inside = Inside(classifier.network, 8, "a test")
    generator = torch.Generator().manual_seed(0)
    images = 0.3 * torch.rand(64, 3, 8, 8, generator=generator)
    labels = torch.arange(64) % 2
    images[:, 0] = (2.0 * labels - 1).view(-1, 1, 1)
    made = Mask(torch.empty(1, 2, 8, 8), 0)
    first = made().detach()
    assert first.min() > 0
    assert first.max() < 1
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        terms = mask_terms(inside, made(), images, labels)
        optimizer.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    kept = made().detach()
    assert losses[-1] < losses[0] - 0.5
    assert kept[0, 0].mean() > kept[0, 1].mean() + 0.2


@pytest.mark.parametrize(("bound", "far"), [(0.001, True), (10.0, False)])
def test_above_a_bound_the_generator_only_learns_to_lower_it(bound: float, far: bool) -> None:
    images = torch.rand(2, 3, 4, 4)
    change = (0.3 * torch.ones_like(images)).requires_grad_()
    weight = torch.rand(1, 5, 2, 2)
    mask = torch.rand(1, 5, 2, 2)

    def terms() -> dict[str, Tensor]:
        moved = change.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1) * weight
        return generator_terms(images + change, images, moved, mask, DecouplingParams(image_bound=bound))

    (slope,) = torch.autograd.grad(terms()["loss"], change)
    (plain,) = torch.autograd.grad(terms()["image"], change)
    assert torch.allclose(slope, plain) is far
    if not far:
        parts = terms()
        torch.testing.assert_close(parts["loss"], 0.01 * parts["benign"] - parts["other"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mask_of_ones_changes_nothing_and_the_map_is_seen_before_it(architecture: str) -> None:
    classifier = of_architecture(architecture)
    inside = Inside(classifier.network, 16, "a test")
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        plain = inside.answer(images)
        ones = inside.answer(images, torch.ones_like(plain.map[:1]))
        none = inside.answer(images, torch.zeros_like(plain.map[:1]))
    assert torch.equal(plain.logits, ones.logits)
    assert torch.equal(plain.map, none.map)
    assert not torch.allclose(plain.logits, none.logits)
    torch.testing.assert_close(none.logits, none.logits[:1].expand(3, -1))


def test_inverting_leaves_the_classifier_and_its_statistics_as_they_are(tmp_path: Path) -> None:
    given = task(tmp_path, "bti_dbf", BRIEF)
    classifier = classifiers.freeze(trainable(given))
    before = state(classifier)
    inversion = Inversion(given, "bti_dbf", labeled_images(given), classifier)
    own = state(inversion.generator)
    inversion.pretrain()
    inversion.alternate(None, lambda _: [])
    assert same_tensors(before, state(classifier))
    assert not same_tensors(own, state(inversion.generator))
    vote = inversion.vote()
    assert 0 <= vote.margin <= vote.share <= 1
    assert vote == inversion.vote()


def test_what_keeps_a_map_can_be_copied_with_its_network() -> None:
    network = of_architecture("resnet18").network
    inside = Inside(network, 16, "a test")
    inside.answer(torch.rand(2, 3, 16, 16).requires_grad_())
    deepcopy(network)


def test_a_network_that_does_not_end_in_a_map_is_refused() -> None:
    network = classifiers.build(from_text("torchvision:vit_small", small_stem=True), 3, PLAIN, 32).network
    with pytest.raises(UserError, match="a test needs a network whose last layer takes the features of a map"):
        Inside(network, 32, "a test")
