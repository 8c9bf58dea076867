"""Means and variances of batch normalization, taken anew when a network has been trained.

Those that a training keeps are of the images that it saw. Where these were disturbed more than those that the network
is made for, it is asked with the statistics of others; one pass over images as they are mends that (Wu and Johnson
2021, "Rethinking 'Batch' in BatchNorm", call it precise statistics).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def retake_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces the running means and variances of a network by their averages over batches.

    Args:
        network: whose layers of batch normalization get them; one without such layers stays as it is. Each layer and
            module goes back to its mode.
        batches: what it takes, float [N, ...] each; a larger one counts for more.
    """
    layers = [each for each in network.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    modes = [(each, each.training) for each in network.modules()]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    passed = 0
    for batch in batches:
        passed += len(batch)
        for layer in layers:
            layer.momentum = len(batch) / passed  # the average over all images so far
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for each, training in modes:
        each.training = training
