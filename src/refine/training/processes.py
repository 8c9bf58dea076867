"""Training in several processes that see different images of one batch (DistributedDataParallel).

The gradient is that of one process with the whole batch, batch normalization excepted: on CPUs each process
normalizes its own part, on GPUs all of them together (SyncBatchNorm). The first process's statistics are kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.models.device import Compute, compute

T = TypeVar("T")

_LOST = (distributed.DistNetworkError, distributed.DistStoreError)
_LEFT_ALONE = 20.0
"""Seconds that a process waits to be ended once another one is gone, so that the sentence of that one is heard."""


@contextmanager
def joined(settings: Machine) -> Iterator[Compute]:
    """This process among those that train together, as torchrun's environment tells of them; alone without it.

    Raises:
        UserError: there is no GPU for each of them.
    """
    alone = compute(settings)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield alone
        return
    device = alone.device
    if device.type == "cuda":
        device = _own_gpu(device, int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield replace(alone, device=device, rank=distributed.get_rank(), world=world)
        distributed.barrier()
    except RuntimeError as error:
        if "gloo/transport" in str(error) or isinstance(error, _LOST):
            time.sleep(_LEFT_ALONE)
            raise UserError("another process of this training is gone; look at what the others say") from None
        raise
    finally:
        distributed.destroy_process_group()


def _own_gpu(wanted: torch.device, number: int) -> torch.device:
    there = torch.cuda.device_count()
    if wanted.index is not None:
        raise UserError(f"REFINE_DEVICE is {wanted}, but each process takes a GPU of its own; set it to cuda")
    if number >= there:
        raise UserError(f"each process takes a GPU of its own, and there are {there}; set REFINE_PROCESSES to {there}")
    return torch.device("cuda", number)


class Processes:
    """The processes that train together.

    Args:
        compute: device of this process, its rank and their number.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self.rank = compute.rank
        self.world = compute.world

    def data_parallel(self, module: nn.Module) -> nn.Module:
        """A module whose gradients become the mean over the processes; the module itself where there is but one."""
        if self.world == 1:
            return module
        if self._compute.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(module, gradient_as_bucket_view=True)

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in the order of their ranks; gradients flow into this process's rows alone.

        A loss of all rows that every process computes has in each the gradient of its own part; their sum is whole.
        """
        if self.world == 1:
            return rows
        sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.world)]
        distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        most = max(int(size) for size in sizes)
        padded = torch.cat([rows.detach(), rows.new_zeros((most - len(rows), *rows.shape[1:]))])
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        own = [part[: int(size)] for part, size in zip(parts, sizes, strict=True)]
        own[self.rank] = rows
        return torch.cat(own)

    def mean(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Sums over the processes, as numbers."""
        values = torch.stack([value.double().cpu() for value in sums.values()]).to(self._compute.device)
        if self.world > 1:
            distributed.all_reduce(values)
        return dict(zip(sums, values.tolist(), strict=True))

    def broadcast(self, value: T) -> T:
        """What the first process has."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, device=self._compute.device)
        first: T = box[0]
        return first

    def agree(self, key: str) -> None:
        """Compares what a training depends on with what the first process has.

        Args:
            key: a hash of it.

        Raises:
            UserError: it differs.
        """
        if self.broadcast(key) != key:
            raise UserError(
                "the processes of this training differ in code, parameters, data, precision or version of torch; give "
                "all machines the same checkout, environment and data"
            )
