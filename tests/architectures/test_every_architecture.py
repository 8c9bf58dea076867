"""What holds for every architecture, including those that are added later."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from refine.core.registry import ARCHITECTURES, component, names
from refine.models.classifier import Architecture, Classifier, DataDependentInit, Normalization, build, folded
from tiny import MEAN, STD, WIDTH, same_tensors


def _build(name: str) -> Classifier:
    torch.manual_seed(0)
    return build(Architecture(name=name, width=WIDTH), 3, Normalization(mean=MEAN, std=STD), "a test")


@pytest.fixture(params=names(ARCHITECTURES))
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """Each architecture, its weights and batch statistics moved from their initial values by one step of training."""
    made = _build(request.param)
    images, labels = torch.rand(12, 3, 16, 16), torch.arange(12) % 3
    if isinstance(made.network, DataDependentInit):
        made.network.init_from_data(made.normalize(images))
    optimizer = torch.optim.SGD([each for each in made.parameters() if each.requires_grad], lr=0.1)
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    nn.functional.cross_entropy(made.train()(images), labels).backward()
    optimizer.step()
    assert not same_tensors(before, made.network.state_dict())
    return made.eval()


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 33])
def test_logits_are_the_head_on_the_features(classifier: Classifier, side: int) -> None:
    images = torch.rand(5, 3, side, side)
    network: Any = classifier.network
    features = network.features(classifier.normalize(images))
    assert features.dim() == 2
    assert classifier(images).shape == (5, 3)
    torch.testing.assert_close(network.head(features), classifier(images))


@torch.no_grad()
def test_the_folded_copy_gives_the_same_logits(classifier: Classifier) -> None:
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(folded(classifier)(images), classifier(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_image_is_classified_alike_in_every_batch(classifier: Classifier) -> None:
    images = torch.rand(5, 3, 16, 16)
    alone = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(alone, classifier(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", names(ARCHITECTURES))
def test_initial_weights_follow_from_the_seed_and_width_is_a_setting(name: str) -> None:
    first, second = (_build(name).network.state_dict() for _ in range(2))
    assert same_tensors(first, second)
    module = component(ARCHITECTURES, name, "a test")
    sizes = [sum(each.numel() for each in module.build(num_classes=3, width=width).parameters()) for width in (8, 16)]
    assert sizes[0] < sizes[1]
