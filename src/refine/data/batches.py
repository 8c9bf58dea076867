"""Batches of a data set that lives on the device: decoded once, cut afresh each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from refine.system.errors import UserError


class Batches:
    """The images of a data set, reshuffled every epoch.

    Args:
        images: uint8 [N, 3, H, W]; kept channels-last on the device.
        batch_size: images in a batch.
        drop_last: leave out the last, smaller batch of an epoch.
        device: where batches live.
        generator: of the order, on the CPU.

    Raises:
        UserError: an epoch would have no batch.
    """

    def __init__(
        self, images: Tensor, batch_size: int, drop_last: bool, device: torch.device, generator: Generator
    ) -> None:
        self._stored = images.permute(0, 2, 3, 1).contiguous().to(device)
        self._batch_size = batch_size
        self._generator = generator
        self._per_epoch = len(images) // batch_size if drop_last else math.ceil(len(images) / batch_size)
        if self._per_epoch == 0:
            raise UserError(f"a batch of {batch_size} images cannot be cut from {len(images)}; lower recipe.batch_size")

    def __len__(self) -> int:
        return self._per_epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (pixels float [B, 3, H, W] in [0, 1], channels-last; rows int64 [B])."""
        order = torch.randperm(len(self._stored), generator=self._generator).to(self._stored.device)
        for batch in range(self._per_epoch):
            rows = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield to_pixels(self._stored[rows].permute(0, 3, 1, 2)), rows


def to_pixels(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float in [0, 1], channels-last."""
    return images.to(torch.float32, memory_format=torch.channels_last) / 255


def in_batches(images: Tensor, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """All images in their order, as pixels float in [0, 1] on the device, channels-last."""
    for start in range(0, len(images), batch_size):
        yield to_pixels(images[start : start + batch_size].to(device))
