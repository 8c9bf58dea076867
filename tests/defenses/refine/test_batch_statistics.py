"""Batch normalization whose statistics are taken anew."""

from __future__ import annotations

import torch
from torch import nn

from refine.defenses.refine.training.batch_statistics import retake_statistics
from tiny import same_tensors


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 2, 3))
    for _ in range(3):
        network(torch.rand(8, 3, 6, 6) + 5)  # of other images
    return network


def test_they_are_the_averages_over_batches_and_nothing_else_changes() -> None:
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batches = [torch.rand(8, 3, 6, 6) for _ in range(4)]
    network[3].eval()
    retake_statistics(network, iter(batches))
    seen = [network[0](batch) for batch in batches]
    layer = network[1]
    mean = torch.stack([each.mean(dim=(0, 2, 3)) for each in seen]).mean(dim=0)
    variance = torch.stack([each.var(dim=(0, 2, 3)) for each in seen]).mean(dim=0)
    assert torch.allclose(layer.running_mean, mean, atol=1e-5)
    assert torch.allclose(layer.running_var, variance, atol=1e-5)
    assert layer.momentum == 0.1
    assert [each.training for each in network] == [True, True, True, False, True]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == (
            not name.startswith("1.running") and name != "1.num_batches_tracked"
        )


def test_a_smaller_batch_counts_for_less() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3))
    images = torch.rand(12, 3, 4, 4)
    retake_statistics(network, images.split(8))
    assert torch.allclose(network[0].running_mean, images.mean(dim=(0, 2, 3)), atol=1e-5)


def test_later_layers_see_what_they_see_in_use() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.9), nn.BatchNorm2d(4))
    batch = torch.rand(64, 3, 6, 6)
    retake_statistics(network, [batch])
    assert torch.allclose(network[2].running_mean, network[0](batch).mean(dim=(0, 2, 3)), atol=1e-5)


def test_a_network_without_batch_normalization_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    retake_statistics(network, [torch.rand(8, 3, 6, 6)])
    assert same_tensors(network.state_dict(), before)
    assert network.training
