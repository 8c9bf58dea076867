"""Batches of a training set: the order of an epoch, and pixels ready for augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from refine.shards.reading.pixels import to_pixels
from refine.training.order import Columns, Sharing, shuffled
from refine.training.training_set import TrainingSet, refuse_large_buffer


@dataclass(frozen=True)
class Batch:
    """One step's images, on the device.

    Attributes:
        pixels: float [B, 3, H, W] in [0, 1].
        fields: int64 [B] each, as the training set was asked for them; answers of a classifier may be float32 [B, K].
        loss_weight: images of this process over the mean of all processes; what its mean loss has to be weighted with.
    """

    pixels: Tensor
    fields: Columns
    loss_weight: float = 1.0

    def __len__(self) -> int:
        return len(self.pixels)


class Batches:
    """The images of a training set, shuffled anew for every epoch.

    Args:
        training_set: to cut from.
        batch_size: images in a batch, over all processes.
        drop_last: leave out the last, smaller batch of an epoch.
        shuffle_buffer: samples that are shuffled together, see `training.order`.
        device: where batches live.
        process: rank of this process, and the number of them.

    Raises:
        UserError: an epoch would have no batch, or the processes cannot share one.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        batch_size: int,
        drop_last: bool,
        shuffle_buffer: int,
        device: torch.device,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self._set = training_set
        self._sharing = Sharing(sum(training_set.sizes), batch_size, drop_last, *process)
        self._buffer = max(shuffle_buffer // process[1], batch_size)
        self._device = device
        refuse_large_buffer(training_set, self._buffer)

    def __len__(self) -> int:
        return self._sharing.steps

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One epoch, in the order that the seed gives.

        All processes shuffle the shards alike, and each shuffles the samples of its part on its own.
        """
        shards = torch.randperm(len(self._set.sizes), generator=Generator().manual_seed(seed)).tolist()
        own = Generator().manual_seed(seed + 1 + self._sharing.rank)
        blocks = self._set.blocks(self._sharing.parts(shards, self._set.sizes))
        batches = shuffled(blocks, self._sharing.sizes, self._buffer, own)
        for columns, share in zip(batches, self._sharing.shares, strict=True):
            images, *fields = self._set.delivered(columns, self._device)
            yield Batch(to_pixels(images), tuple(fields), share)
