"""What holds for every architecture, including those that are added later."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from refine.core.registry import ARCHITECTURES, component, names
from refine.models.architecture import named
from refine.models.classifier import Classifier, DataDependentInit, Normalization, build, folded
from tiny import MEAN, STD, same_tensors, small


def _build(name: str, side: int = 16) -> Classifier:
    torch.manual_seed(0)
    return build(small(name), 3, Normalization(mean=MEAN, std=STD), side)


def _moved(name: str, side: int = 16) -> Classifier:
    """In eval mode, weights and batch statistics moved from their initial values by one step of training."""
    made = _build(name, side)
    images, labels = torch.rand(12, 3, side, side), torch.arange(12) % 3
    if isinstance(made.network, DataDependentInit):
        made.network.init_from_data(made.normalize(images))
    optimizer = torch.optim.SGD([each for each in made.parameters() if each.requires_grad], lr=0.1)
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    nn.functional.cross_entropy(made.train()(images), labels).backward()
    optimizer.step()
    assert not same_tensors(before, made.network.state_dict())
    return made.eval()


@pytest.fixture(params=names(ARCHITECTURES))
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """Each architecture, moved from where it begins."""
    return _moved(request.param)


@pytest.mark.parametrize("name", names(ARCHITECTURES))
@torch.no_grad()
@pytest.mark.parametrize("side", [16, 33])
def test_logits_are_the_head_on_the_features(name: str, side: int) -> None:
    with torch.enable_grad():
        classifier = _moved(name, side)
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
def test_initial_weights_follow_from_the_seed(name: str) -> None:
    first, second = (_build(name).network.state_dict() for _ in range(2))
    assert same_tensors(first, second)


@pytest.mark.parametrize("name", names(ARCHITECTURES))
def test_width_is_a_setting_where_there_is_one(name: str) -> None:
    if "width" not in component(ARCHITECTURES, name, "a test").Params.model_fields:
        pytest.skip(f"{name} has no width")
    normalization = Normalization(mean=MEAN, std=STD)
    sizes = [
        sum(each.numel() for each in build(named(name, width=width), 3, normalization, 16).parameters())
        for width in (8, 16)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("name", names(ARCHITECTURES))
def test_it_can_be_built_without_memory_as_loading_does(name: str) -> None:
    with torch.device("meta"):
        described = {key: tensor.shape for key, tensor in _build(name).network.state_dict().items()}
    assert described == {key: tensor.shape for key, tensor in _build(name).network.state_dict().items()}
