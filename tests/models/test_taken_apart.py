"""Networks of libraries, taken apart in front of their last layer, answer as they did before."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from refine.core.errors import UserError
from refine.models.apart import Split, Whole, apart
from refine.models.folding import folded
from refine.models.layout import channels_last

SIDE = 64


def _seen(model: str, side: int = SIDE) -> tuple[nn.Module, torch.Tensor]:
    """A network of three classes whose statistics have moved, and images for it."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(model, weights=None, num_classes=3)
    with torch.no_grad():
        network.train()(torch.rand(6, 3, side, side))
    return network.eval(), torch.rand(2, 3, side, side)


@torch.no_grad()
@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "swin_t"])
def test_the_head_on_the_features_is_the_network(model: str) -> None:
    network, images = _seen(model)
    expected = network(images)
    names = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = apart(network, 3, SIDE, model)
    assert isinstance(made, Split)
    assert torch.equal(made(images), expected)
    assert torch.equal(made.head(made.features(images)), expected)
    assert made.features(images).shape == (2, made.head.in_features)
    own = made.state_dict()
    assert {made.own_name(name) for name in names} == own.keys()
    assert all(torch.equal(own[made.own_name(name)], tensor) for name, tensor in names.items())


@torch.no_grad()
def test_a_network_that_ends_in_a_convolution_stays_whole() -> None:
    network, images = _seen("squeezenet1_1")
    expected = network(images)
    made = apart(network, 3, SIDE, "squeezenet1_1")
    assert isinstance(made, Whole)
    assert not hasattr(made, "head")
    assert torch.equal(made(images), expected)
    maps = network.get_submodule("features")(images)
    torch.testing.assert_close(made.features(images), maps.mean(dim=(2, 3)))


class Twice(nn.Module):
    """Its last layer is used twice, so what it is given last is not all that it needs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(self.layer(images.mean(dim=(2, 3))))
        return out


class Scaled(nn.Module):
    """What its last layer says is changed afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = 2 * self.layer(images.mean(dim=(2, 3)))
        return out


@torch.no_grad()
@pytest.mark.parametrize("kind", [Twice, Scaled])
def test_a_last_layer_that_is_not_the_end_is_no_head(kind: type[nn.Module]) -> None:
    network, images = kind(), torch.rand(2, 3, 4, 4)
    expected = network(images)
    made = apart(network, 3, 4, kind.__name__)
    assert isinstance(made, Whole)
    assert torch.equal(made(images), expected)
    assert made.features(images).shape == (2, 3)


def test_looking_changes_neither_modes_nor_statistics() -> None:
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    network.stage2.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    after = torch.random.get_rng_state()
    apart(network, 3, SIDE, "a network whose modes differ")
    assert torch.equal(after, torch.random.get_rng_state())
    assert network.training
    assert not network.stage2.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_images_that_are_too_small_are_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^alexnet does not take images of 16 pixels \(.*\); choose another side"):
        apart(torchvision.models.alexnet(num_classes=3), 3, 16, "alexnet")


def test_a_network_without_classes_is_refused() -> None:
    with pytest.raises(UserError, match="gives no logits of 3 classes"):
        apart(nn.Conv2d(3, 3, 1), 3, 16, "a convolution")


@torch.no_grad()
@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"])
def test_folded_it_answers_the_same(model: str) -> None:
    network, images = _seen(model)
    made = apart(network, 3, SIDE, model)
    torch.testing.assert_close(folded(made)(images), made(images), rtol=1e-3, atol=1e-3)


class Branching(nn.Module):
    """What it does depends on its input, which torch.fx cannot know."""

    side = 8

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] != 3:
            raise ValueError(images.shape)
        out: torch.Tensor = self.normalization(self.convolution(images)).mean(dim=(2, 3))
        return out


@torch.no_grad()
def test_a_network_that_answers_otherwise_when_folded_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Branching().eval()
    monkeypatch.setattr("refine.models.folding.fuse", lambda _: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    made = folded(network)
    images = torch.rand(2, 3, 8, 8)
    assert made is not network
    assert torch.equal(made(images), network(images))


@torch.no_grad()
def test_a_network_that_cannot_be_followed_is_used_as_it_is() -> None:
    network = Branching().eval()
    images = torch.rand(2, 3, 8, 8)
    assert any(isinstance(module, nn.BatchNorm2d) for module in folded(network).modules())
    assert torch.equal(folded(network)(images), network(images))


def test_tensors_of_five_dimensions_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv3d(3, 4, 2), nn.Conv2d(3, 4, 2))
    channels_last(network)
    assert network[0].weight.is_contiguous()
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last)
