"""Which share of a network's weights is replaced by new ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from refine.defending import replacement
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import Normalization
from tiny import MEAN, STD

PUBLISHED = [0.01, 0.01, 0.03, 0.09, 0.27]


def _built(name: str, width: int) -> nn.Module:
    return classifiers.build(named(name, width=width), 10, Normalization(mean=MEAN, std=STD), 32).network


def test_resnet18_has_the_published_probabilities() -> None:
    found = replacement.probabilities(_built("resnet18", 8), PUBLISHED, 0.1)
    network = _built("resnet18", 8)
    for name, share in found.items():
        first, second = name.split(".")[:2]
        assert share == {"stem": 0.01, "head": 0.1}.get(first, PUBLISHED[1:][int(second)] if second.isdigit() else 0)
    others = {name for name, _ in network.named_parameters()} - found.keys()
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {name.rpartition(".")[0] for name in others} == norms
    assert "stages.1.0.downsample.0.weight" in found


def test_airbench_takes_them_by_depth_and_keeps_the_layer_that_is_computed() -> None:
    found = replacement.probabilities(_built("airbench", 8), PUBLISHED, 0.1)
    by_group = {".".join(name.split(".")[:2]): share for name, share in found.items()}
    assert by_group == {"blocks.2": 0.01, "blocks.3": 0.03, "blocks.4": 0.27, "head.weight": 0.1}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0.27]), (2, [0.01, 0.27]), (4, [0.01, 0.01 + 0.02 / 3, 0.03 + 2 * 0.06 / 3, 0.27]), (5, PUBLISHED)],
)
def test_other_numbers_of_groups_take_them_at_their_relative_depth(count: int, expected: list[float]) -> None:
    assert [replacement._at_depth(PUBLISHED, number, count) for number in range(count)] == pytest.approx(expected)


@pytest.mark.parametrize("architecture", ["resnet18", "airbench"])
def test_the_share_of_replaced_entries_is_within_binomial_bounds(architecture: Any) -> None:
    torch.manual_seed(1)
    given, new = _built(architecture, 32), _built(architecture, 32)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    shares = replacement.probabilities(new, PUBLISHED, 0.1)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.copy_(2 + torch.rand_like(parameter))  # none of which the given network has
    replacement.replace(given, new, shares)
    groups: dict[float, list[int]] = {}
    for name, tensor in given.state_dict().items():
        touched = tensor != before[name]
        if name not in shares:
            assert not touched.any()
            continue
        assert torch.equal(tensor[touched], new.state_dict()[name][touched])
        groups.setdefault(shares[name], []).extend(touched.flatten().tolist())
    for share, touched in groups.items():
        bound = 4 * math.sqrt(share * (1 - share) * len(touched))
        assert abs(sum(touched) - share * len(touched)) <= bound


def _groups_of(model: str, side: int = 224) -> list[float]:
    """The shares of a network of torchvision from the input on, without the head, where they go from 0 to 1."""
    with torch.device("meta"):
        network = classifiers.build(
            named("torchvision", model=model), 10, Normalization(mean=MEAN, std=STD), side
        ).network
    shares = replacement.probabilities(network, [0.0, 1.0], 0.5)
    assert shares["head.weight"] == 0.5
    return [share for name, share in shares.items() if not name.startswith("head.")]


@pytest.mark.parametrize(("model", "groups"), [("vgg11", 10), ("resnet18", 9), ("vit_b_32", 13), ("convnext_tiny", 8)])
def test_layers_of_other_libraries_are_taken_by_depth(model: str, groups: int) -> None:
    shares = _groups_of(model)
    assert shares == sorted(shares)
    assert sorted(set(shares)) == pytest.approx([number / (groups - 1) for number in range(groups)])
