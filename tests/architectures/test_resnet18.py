"""ResNet-18 for small images, against torchvision's with its stem replaced."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18 as reference

from refine.architectures.resnet18.network import ResNet18, build
from refine.architectures.resnet18.params import Params


def test_it_has_as_many_parameters_as_the_published_one() -> None:
    with torch.device("meta"):
        network = build(Params(), 10, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962
    assert sum(buffer.numel() for buffer in network.buffers()) == 9_620


def test_it_equals_torchvisions_with_a_small_stem() -> None:
    torch.manual_seed(0)
    ours, theirs = build(Params(), 10, 32), reference(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    mapped = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(mapped)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.train()(images), theirs.train()(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)


def test_logits_are_the_head_on_the_features() -> None:
    network = build(Params(width=8), 7, 32).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, 64)
        assert torch.equal(network(images), features @ network.head.weight.T + network.head.bias)


def test_it_begins_with_the_weights_that_torch_gives_its_layers() -> None:
    torch.manual_seed(0)
    for name, module in build(Params(), 10, 32).named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5  # one over the root of the fan-in, of a uniform distribution
            assert module.weight.abs().max() <= bound * (1 + 1e-6), name
            torch.testing.assert_close(module.weight.std().item(), bound / 3**0.5, rtol=0.03, atol=0, msg=name)
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight)), name
            assert torch.equal(module.bias, torch.zeros_like(module.bias)), name


@pytest.mark.parametrize("side", [16, 65])
def test_the_shortcut_of_a_narrow_network_computes_what_a_convolution_does(side: int) -> None:
    shortcut = ResNet18(num_classes=3, width=8).stages[1][0].downsample.eval()
    plain = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16)).eval()
    plain.load_state_dict(shortcut.state_dict())
    images = torch.rand(4, 8, side, side, generator=torch.Generator().manual_seed(1))
    expected = plain.double()(images.double())
    expected.square().sum().backward()
    computed = shortcut(images.contiguous(memory_format=torch.channels_last))  # ends a process without the detour
    computed.square().sum().backward()
    torch.testing.assert_close(computed, expected.float())
    torch.testing.assert_close(shortcut[0].weight.grad, plain[0].weight.grad.float())
