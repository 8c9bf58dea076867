"""The network for short runs: its first layer, how it begins, and what it gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from refine.architectures.airbench.network import BIAS_SCALE, Airbench, build
from refine.architectures.airbench.params import Params
from refine.models.classifier import Classifier, Normalization, folded, freeze
from support import synthetic
from tiny import MEAN, STD


@pytest.fixture
def network() -> Airbench:
    """A narrow one, freshly initialized."""
    torch.manual_seed(0)
    return build(Params(width=8), 7, 32)


def _images() -> torch.Tensor:
    """Images whose neighboring pixels and channels are alike, as in photographs: float [64, 3, 16, 16]."""
    small = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(small, scale_factor=4, mode="bilinear")
    return smooth + smooth.mean(dim=1, keepdim=True)


def test_the_first_layer_makes_patches_uncorrelated_and_of_variance_one(network: Airbench) -> None:
    images = _images()
    network.init_from_data(images)
    with torch.no_grad():
        values = network.whiten(images).transpose(0, 1).flatten(1)
    assert values.shape[0] == 24
    assert torch.equal(values[:12], -values[12:])
    second_moments = values[:12] @ values[:12].T / values.shape[1]
    assert (second_moments - second_moments.diagonal().diag()).abs().max() < 1e-3
    # The least variance that is assumed holds back directions in which there is hardly any.
    assert ((second_moments.diagonal() > 0.5) & (second_moments.diagonal() < 1.001)).sum() >= 8
    assert second_moments.diagonal().max() < 1.001


def test_the_first_layer_is_never_learned_and_everything_else_is(network: Airbench) -> None:
    network.init_from_data(_images())
    functional.cross_entropy(network(_images()), torch.arange(64) % 7).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {"whiten.weight"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters() if parameter.grad is not None)


def test_other_convolutions_begin_as_the_identity_on_their_first_channels(network: Airbench) -> None:
    convolutions = [module for module in network.blocks.modules() if isinstance(module, nn.Conv2d)]
    assert [(made.in_channels, made.out_channels) for made in convolutions] == [
        (24, 8), (8, 8), (8, 32), (32, 32), (32, 32), (32, 32)
    ]  # fmt: skip
    for made in convolutions:
        maps = torch.randn(1, made.in_channels, 5, 5)
        kept = min(made.in_channels, made.out_channels)
        with torch.no_grad():
            torch.testing.assert_close(made(maps)[:, :kept], maps[:, :kept])


def test_a_bias_learns_faster_than_a_weight_by_the_square_of_its_scale() -> None:
    network = build(Params(width=8), 3, 32)
    shift = next(module for module in network.blocks if hasattr(module, "bias"))
    maps = torch.zeros(1, 24, 2, 2, requires_grad=True)
    optimizer = torch.optim.SGD([maps, *shift.parameters()], lr=0.1)
    before = shift(torch.zeros(1, 24, 1, 1)).detach()
    shift(maps).mean(dim=(0, 2, 3)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        moved = (shift(torch.zeros(1, 24, 1, 1)) - before).abs().mean()
        plain = maps.detach().abs().sum(dim=(0, 2, 3)).mean()
    torch.testing.assert_close(moved, BIAS_SCALE**2 * plain)


def test_logits_are_the_head_on_the_features(network: Airbench) -> None:
    images = torch.randn(3, 3, 32, 32)
    network.eval()
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (3, 32)
        assert torch.equal(network(images), network.head(features))
        torch.testing.assert_close(network(images), features @ network.head.weight.T / 9)


@pytest.mark.parametrize("side", [9, 16, 31, 224])
def test_it_takes_images_of_many_sizes(network: Airbench, side: int) -> None:
    assert network.eval()(torch.randn(1, 3, side, side)).shape == (1, 7)


def test_in_bfloat16_nothing_between_the_layers_turns_into_float32(network: Airbench) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.eval().whiten(torch.randn(2, 3, 16, 16))
        assert network.blocks[0](maps).dtype == torch.bfloat16
        assert network.blocks(maps).dtype == torch.bfloat16


def test_folded_it_answers_the_same(network: Airbench) -> None:
    pixels = synthetic(12)[0] / 255
    classifier = Classifier(network, Normalization(mean=MEAN, std=STD))
    network.init_from_data(classifier.normalize(pixels))
    classifier.train()(pixels)
    freeze(classifier)
    torch.testing.assert_close(folded(classifier)(pixels), classifier(pixels), rtol=1e-4, atol=1e-5)
