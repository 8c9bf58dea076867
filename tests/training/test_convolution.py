"""Convolutions that learn faster are still torch's convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from refine.architectures import resnet18
from refine.defenses.refine.model.unet import UNet
from refine.training import convolution
from refine.training.convolution import LEAST_INPUTS, LEAST_OUTPUTS, LEAST_WORK, Convolution, quickened, weight_gradient

WIDE = LEAST_OUTPUTS


@pytest.fixture
def _any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "LEAST_WORK", 0)


def _gradients(network: nn.Module, maps: Tensor) -> list[Tensor]:
    out = network(maps)
    toward = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return list(torch.autograd.grad((out * toward).sum(), [maps, *network.parameters()]))


@pytest.mark.parametrize(("batch", "side"), [(1, 1), (3, 2), (5, 7), (40, 16)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("_any_work")
def test_value_and_gradients_are_torchs(batch: int, side: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(WIDE, 2 * WIDE, 3, padding=1, bias=bias)
    maps = torch.randn(batch, WIDE, side, side, requires_grad=True)
    quick = Convolution.of(plain)
    torch.testing.assert_close(quick(maps), plain(maps))
    exact = _gradients(copy.deepcopy(plain).double(), maps.double())
    for got, expected in zip(_gradients(quick, maps), exact, strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(got.double() / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1000, 9, 5), (2, 200, 300)], ids=["images in parts", "rows in parts"])
def test_weight_gradient_in_float64_to_the_last_digits(size: tuple[int, int, int]) -> None:
    images, height, width = size
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(images, 3, height, width, dtype=torch.float64, generator=generator)
    gradient = torch.randn(images, 4, height, width, dtype=torch.float64, generator=generator)
    weight = torch.zeros(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(nn.functional.conv2d(maps, weight, padding=1), weight, gradient)
    torch.testing.assert_close(weight_gradient(maps, gradient), expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_lies_in_memory_as_channels_last_weights_do() -> None:
    maps, gradient = torch.randn(2, 5, 4, 4), torch.randn(2, 6, 4, 4)
    found = weight_gradient(maps, gradient)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_only_what_fits_is_replaced() -> None:
    deep = nn.Sequential(nn.Conv2d(WIDE, WIDE, 3, padding=1))
    layers = [
        nn.Conv2d(WIDE, WIDE, 3, padding=1),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, stride=2),
        nn.Conv2d(WIDE, WIDE, 1),
        nn.Conv2d(WIDE, WIDE, 3),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=2),
        nn.Conv2d(WIDE, WIDE, 3, padding=2, dilation=2),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(LEAST_INPUTS - 1, WIDE, 3, padding=1),
        nn.Conv2d(WIDE, WIDE - 1, 3, padding=1),
        deep,
    ]
    network = nn.Sequential(*layers)
    with quickened(network):
        assert [index for index, layer in enumerate(network) if type(layer) is Convolution] == [0]
        assert type(deep[0]) is Convolution
    assert list(network) == layers
    assert type(deep[0]) is nn.Conv2d


@pytest.mark.parametrize("build", [lambda: UNet(64), lambda: resnet18.build(10, 64)])
def test_parameters_keep_their_names_and_are_the_same(build: object) -> None:
    network = build()  # type: ignore[operator]
    before = dict(network.named_parameters())
    with quickened(network):
        after = dict(network.named_parameters())
        assert sum(type(module) is Convolution for module in network.modules()) > 10
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_what_was_replaced_comes_back_after_an_error() -> None:
    network = nn.Sequential(nn.Conv2d(WIDE, WIDE, 3, padding=1))
    with pytest.raises(KeyboardInterrupt), quickened(network):
        raise KeyboardInterrupt
    assert type(network[0]) is nn.Conv2d


@pytest.fixture
def _never(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the quick way")

    monkeypatch.setattr("refine.training.convolution._Convolve.apply", refuse)


@pytest.mark.usefixtures("_any_work", "_never")
def test_double_precision_bfloat16_and_frozen_weights_go_torchs_way() -> None:
    layer = Convolution(WIDE, WIDE, 3, padding=1)
    maps = torch.randn(2, WIDE, 4, 4)
    with torch.no_grad():
        layer(maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(maps)
    copy.deepcopy(layer).double()(maps.double())
    layer.requires_grad_(False)(maps.requires_grad_())
    with pytest.raises(AssertionError, match="the quick way"):
        layer.requires_grad_(True)(maps)


@pytest.mark.usefixtures("_never")
def test_a_small_batch_goes_torchs_way() -> None:
    layer = Convolution(WIDE, WIDE, 3, padding=1)
    pixels = int(LEAST_WORK / WIDE**2)
    layer(torch.randn(1, WIDE, 1, pixels))
    with pytest.raises(AssertionError, match="the quick way"):
        layer(torch.randn(1, WIDE, 1, pixels + 1))
