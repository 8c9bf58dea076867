"""The U-Net against the numbers, the layer table and the wiring of the published U-Net."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from refine.defenses.refine.model.transforms.unet.transform import UNet

# spatial size, then input and output channels of both convolutions, for c = 64 and images of 32 pixels
TABLE = [
    (32, (3, 64), (64, 64)),
    (16, (64, 128), (128, 128)),
    (8, (128, 256), (256, 256)),
    (4, (256, 512), (512, 512)),
    (2, (512, 512), (512, 512)),
    (4, (1024, 512), (512, 256)),
    (8, (512, 256), (256, 128)),
    (16, (256, 128), (128, 64)),
    (32, (128, 64), (64, 64)),
]


def _convolutions(first_channels: int, side: int) -> list[tuple[nn.Conv2d, int]]:
    """Every convolution in the order of its use, with the side of its output; nothing is computed."""
    used: list[tuple[nn.Conv2d, int]] = []
    with torch.device("meta"):
        network = UNet(first_channels)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda layer, _, output: used.append((layer, output.shape[-1])))
        network(torch.empty(2, 3, side, side))
    return used


@pytest.mark.parametrize(
    ("first_channels", "parameters", "buffers"),
    [(64, 17_267_523, 8_850), (32, 4_320_675, 4_434), (16, 1_082_067, 2_226)],
)
def test_it_has_as_many_parameters_as_the_published_one(first_channels: int, parameters: int, buffers: int) -> None:
    with torch.device("meta"):
        network = UNet(first_channels)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(buffer.numel() for buffer in network.buffers()) == buffers


@pytest.mark.parametrize(("first_channels", "divisor"), [(64, 1), (32, 2)])
def test_its_layers_are_those_of_the_table(first_channels: int, divisor: int) -> None:
    expected = [
        (side, tuple(channels if channels == 3 else channels // divisor for channels in pair))
        for side, *pairs in TABLE
        for pair in pairs
    ]
    *double, last = _convolutions(first_channels, 32)
    assert [(side, (layer.in_channels, layer.out_channels)) for layer, side in double] == expected
    assert all(layer.kernel_size == (3, 3) and layer.bias is not None for layer, _ in double)
    assert (last[0].in_channels, last[0].out_channels, last[0].kernel_size) == (first_channels, 3, (1, 1))


@pytest.mark.parametrize(
    ("first_channels", "side", "millions"), [(64, 32, 624.8), (32, 32, 156.7), (16, 32, 39.4), (32, 224, 7678)]
)
def test_it_costs_as_much_as_the_published_one(first_channels: int, side: int, millions: float) -> None:
    cost = sum(layer.weight.numel() * size * size for layer, size in _convolutions(first_channels, side))
    assert cost / 1e6 == pytest.approx(millions, abs=0.5 if side == 224 else 0.05)


def _double(state: dict[str, Tensor], prefix: str, images: Tensor) -> Tensor:
    for convolution, norm in ((0, 1), (3, 4)):
        weight, bias = state[f"{prefix}.{convolution}.weight"], state[f"{prefix}.{convolution}.bias"]
        images = functional.conv2d(images, weight, bias, padding=1)
        mean, variance = (state[f"{prefix}.{norm}.running_{name}"].view(1, -1, 1, 1) for name in ("mean", "var"))
        scale, shift = (state[f"{prefix}.{norm}.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias"))
        images = ((images - mean) / torch.sqrt(variance + 1e-5) * scale + shift).clamp(min=0)
    return images


def _slowly(network: UNet, images: Tensor) -> Tensor:
    """The published wiring written out: skip first, upsampled second, zeros around what is too small."""
    state = network.state_dict()
    maps = [_double(state, "inlet", images)]
    for level in range(4):
        maps.append(_double(state, f"down.{level}", functional.max_pool2d(maps[-1], 2)))
    inner = maps[4]
    for level in range(4):
        skip = maps[3 - level]
        inner = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)(inner)
        padded = torch.zeros(*inner.shape[:2], *skip.shape[2:])
        top, left = ((skip.shape[axis] - inner.shape[axis]) // 2 for axis in (2, 3))
        padded[:, :, top : top + inner.shape[2], left : left + inner.shape[3]] = inner
        inner = _double(state, f"up.{level}", torch.cat([skip, padded], dim=1))
    return functional.conv2d(inner, state["outlet.weight"], state["outlet.bias"])


@pytest.mark.parametrize("size", [(16, 16), (17, 17), (23, 31), (32, 32), (47, 33), (16, 40)])
def test_it_is_wired_as_in_the_table_for_every_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = UNet(8)
    images = torch.rand(3, 3, *size)
    with torch.no_grad():
        network.train()(torch.rand(3, 3, *size))
        out = network.eval()(images)
        expected = _slowly(network, images)
    assert out.shape == images.shape
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_its_batch_normalizations_are_torchs_as_in_the_released_code() -> None:
    norms = [module for module in UNet(8).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 18
    for norm in norms:
        assert (norm.momentum, norm.eps, norm.affine, norm.track_running_stats) == (0.1, 1e-5, True, True)


def test_its_output_is_not_clamped() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        network = UNet(8).eval()
        network.outlet.weight.mul_(100)
        out = network(torch.rand(2, 3, 16, 16))
    assert out.min() < 0
    assert out.max() > 1


def test_its_first_weights_depend_on_the_seed_alone() -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(UNet(8).outlet.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
