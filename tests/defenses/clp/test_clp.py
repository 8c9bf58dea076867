"""CLP: the pairs that it finds, its bounds, and which channels it removes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from finetuned import ARCHITECTURES, of_architecture, state, task
from refine.core.errors import UserError
from refine.defending.channels import Pair, pairs
from refine.defenses.clp.defense import Params
from refine.defenses.clp.training import bounds, prune, train
from refine.models.card import WEIGHTS
from support import synthetic
from tiny import same_tensors

FACTOR = 50.0
PLACES = {"resnet18": ("stages.2.0.conv2", 5), "airbench": ("blocks.3.5", 5)}
"""A convolution in a layer of 32 channels, and one of them."""
CLEARED = {
    "resnet18": ["stages.2.0.bn2.weight", "stages.2.0.bn2.bias"],
    "airbench": ["blocks.3.5.weight", "blocks.3.6.running_mean"],
}
"""Where that channel is set to zero."""


def _planted(architecture: str) -> nn.Module:
    """A network with one channel that amplifies far more than all others."""
    network = of_architecture(architecture).network
    name, channel = PLACES[architecture]
    with torch.no_grad():
        network.get_parameter(f"{name}.weight")[channel] *= FACTOR
    return network


def test_published_setting() -> None:
    assert Params().u == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_batch_normalization_is_paired_with_the_convolution_whose_output_it_takes(architecture: str) -> None:
    network = of_architecture(architecture).network
    inputs: dict[nn.Module, Tensor] = {}
    outputs: dict[int, nn.Module] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        inputs[module] = given[0]
        outputs[id(out)] = module

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d):
            module.register_forward_hook(note)
    kept = network(torch.rand(2, 3, 16, 16))
    found = pairs(network, "clp")
    assert len(found) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for pair in found:
        before = outputs[id(inputs[pair.normalization])]
        if isinstance(before, nn.MaxPool2d):
            before = outputs[id(inputs[before])]
        assert before is pair.convolution is network.get_submodule(pair.name)
    assert len(kept) == 2


def test_shortcuts_are_among_the_pairs_and_the_order_of_modules_does_not_matter() -> None:
    names = {pair.name for pair in pairs(of_architecture("resnet18").network, "clp")}
    assert {f"stages.{stage}.0.downsample.0" for stage in (1, 2, 3)} < names

    class Crossed(nn.Module):
        """Registers its layers in another order than it calls them, one before normalization alone."""

        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1)
            self.of_second, self.before, self.of_first = nn.BatchNorm2d(4), nn.BatchNorm2d(3), nn.BatchNorm2d(4)

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = self.of_first(self.first(self.before(images))).relu()
            normalized: Tensor = self.of_second(self.second(maps))
            return normalized

    made = Crossed()
    found = [(pair.name, pair.normalization) for pair in pairs(made, "clp")]
    assert found == [("first", made.of_first), ("second", made.of_second)]


def test_a_convolution_whose_output_something_else_takes_too_is_left_alone() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.normalization = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = self.convolution(images)
            normalized: Tensor = self.normalization(maps)
            return normalized + maps

    with pytest.raises(UserError, match="clp finds no convolution with a batch normalization after it"):
        pairs(Branching(), "clp")


def test_bounds_by_hand() -> None:
    torch.manual_seed(0)
    convolution, layer = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5))
        layer.get_buffer("running_var").copy_(torch.rand(5) + 0.1)
    found = bounds(Pair("", convolution, layer))
    scales = layer.weight.abs() / (layer.get_buffer("running_var") + 1e-5).sqrt()
    for channel in range(5):
        matrix = convolution.weight[channel].reshape(3, 9).detach().numpy() * float(scales[channel].detach())
        assert float(found[channel]) == pytest.approx(np.linalg.svd(matrix)[1].max(), rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_very_high_threshold_removes_nothing(architecture: str) -> None:
    network = _planted(architecture)
    before = state(network)
    assert prune(network, 1e6) == []
    assert same_tensors(before, state(network))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_planted_channel_is_the_only_one_that_is_removed_and_its_output_is_zero(architecture: str) -> None:
    network = _planted(architecture)
    before, place = state(network), PLACES[architecture]
    (pruned,) = prune(network, 4)
    assert (pruned.layer, pruned.channel) == place
    assert pruned.bound > pruned.threshold
    (pair,) = (pair for pair in pairs(network, "clp") if pair.name == place[0])
    for name in CLEARED[architecture]:
        assert before[name][place[1]].any() or name.endswith("bias")
        before[name][place[1]] = 0
    assert same_tensors(state(network), before)
    seen: list[Tensor] = []
    pair.normalization.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    with torch.no_grad():
        network(synthetic(4)[0] / 255)
    assert (seen[0][:, place[1]] == 0).all()
    assert (seen[0][:, place[1] + 1] != 0).any()


def test_a_channel_that_is_always_zero_does_not_hide_the_others() -> None:
    network = _planted("resnet18")
    name, _ = PLACES["resnet18"]
    with torch.no_grad():
        network.get_parameter(f"{name}.weight")[0] = 0.0
        network.get_buffer(f"{name.replace('conv', 'bn')}.running_var")[0] = 0.0
    assert [(each.layer, each.channel) for each in prune(network, 4)] == [PLACES["resnet18"]]


def test_a_network_that_cannot_be_followed_is_refused() -> None:
    class Deciding(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.mean() > 0 else -images

    with pytest.raises(UserError, match="clp cannot follow what this architecture computes"):
        pairs(Deciding(), "clp")


def test_no_image_is_read_and_what_was_removed_is_written_down(tmp_path: Path) -> None:
    given = replace(task(tmp_path, "clp", {"u": 4.0}), images=tmp_path / "nowhere")
    given.classifier.network.load_state_dict(_planted("resnet18").state_dict())
    before = state(given.classifier)
    train(given)
    assert same_tensors(before, state(given.classifier))
    with (tmp_path / "out/pruned.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    name, channel = PLACES["resnet18"]
    assert (row["layer"], int(row["channel"])) == (name, channel)
    assert float(row["bound"]) > float(row["threshold"])
    saved = load_file(tmp_path / "out" / WEIGHTS)
    assert saved[f"{name.replace('conv', 'bn')}.weight"][channel] == 0
