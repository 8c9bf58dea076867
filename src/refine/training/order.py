"""The order of an epoch: shards in random order, their samples through a shuffle buffer.

A stream can be shuffled in this way while only the buffer is in memory, so a data set that is streamed and one
that is kept whole give the very same batches. A buffer as large as the data set makes it a uniform permutation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError

Columns = tuple[Tensor, ...]


@dataclass(frozen=True)
class Part:
    """Samples `start` to `stop` of the shard called `number`."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Sharing:
    """Who takes which part of an epoch.

    Attributes:
        samples: of an epoch, over all processes.
        batch_size: over all processes.
        drop_last: leave out the last, smaller batch.
        rank: of this process.
        world: number of processes.

    Raises:
        UserError: the batch cannot be shared by the processes, or an epoch would have no batch.
    """

    samples: int
    batch_size: int
    drop_last: bool
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise UserError(
                f"a batch of {self.batch_size} images cannot be shared by {self.world} processes; "
                "make batch_size a multiple of them"
            )
        if self.steps == 0 or self.samples < self.world:
            raise UserError(f"a batch of {self.batch_size} images cannot be cut from {self.samples}; lower batch_size")

    @property
    def steps(self) -> int:
        """Batches in an epoch, the same for every process.

        A last batch with fewer images than there are processes joins the one before it.
        """
        if self.drop_last:
            return self.samples // self.batch_size
        steps = math.ceil(self.samples / self.batch_size)
        return steps - 1 if steps > 1 and self.samples - (steps - 1) * self.batch_size < self.world else steps

    @property
    def sizes(self) -> list[int]:
        """Images of each of this process's batches."""
        return self._sizes(*self._range(), self.batch_size // self.world)

    @property
    def shares(self) -> list[float]:
        """This process's images over the mean of all processes, for each batch: 1 but for an uneven last one."""
        every = self._sizes(0, self.samples, self.batch_size)
        return [own * self.world / count for own, count in zip(self.sizes, every, strict=True)]

    def _sizes(self, start: int, stop: int, size: int) -> list[int]:
        if self.drop_last:
            return [size] * self.steps
        return [size] * (self.steps - 1) + [stop - start - (self.steps - 1) * size]

    def _range(self) -> tuple[int, int]:
        return self.samples * self.rank // self.world, self.samples * (self.rank + 1) // self.world

    def parts(self, order: list[int], sizes: list[int]) -> list[Part]:
        """The parts of shards that this process reads: consecutive samples, when shards come in this order.

        Args:
            order: numbers of all shards.
            sizes: samples of each shard, by its number.
        """
        first, last = self._range()
        parts = []
        place = 0
        for number in order:
            start, stop = max(first - place, 0), min(last - place, sizes[number])
            if start < stop:
                parts.append(Part(number, start, stop))
            place += sizes[number]
        return parts


def shuffled(blocks: Iterable[Columns], sizes: list[int], buffer: int, generator: Generator) -> Iterator[Columns]:
    """Batches of a stream that goes through a shuffle buffer, every sample at most once.

    While the stream lasts a batch is drawn from the buffer without repetition and its places are filled again;
    what is left in the end is one uniform permutation.

    Args:
        blocks: the stream, as columns of equal length.
        sizes: of the batches; what the stream gives beyond their sum is left out.
        buffer: samples in the buffer; at least as many as in a batch.
        generator: on the CPU.
    """
    taker = _Taker(blocks)
    held = taker.take(buffer)
    filled = len(held[0])
    left = list(sizes)
    while left:
        fresh = taker.take(left[0])
        if len(fresh[0]) < left[0]:
            break
        places = torch.randperm(filled, generator=generator)[: left[0]]
        yield tuple(column[places] for column in held)
        for column, new in zip(held, fresh, strict=True):
            column[places] = new
        left.pop(0)
    else:
        return
    order = torch.randperm(filled + len(fresh[0]), generator=generator)
    for size in left:
        rows, order = order[:size], order[size:]
        yield tuple(_pick(column, new, rows) for column, new in zip(held, fresh, strict=True))


def _pick(held: Tensor, fresh: Tensor, rows: Tensor) -> Tensor:
    """Rows of both together, without putting the larger one into new memory."""
    if len(fresh) == 0:
        return held[rows]
    picked = held[rows.clamp(max=len(held) - 1)]
    late = rows >= len(held)
    picked[late] = fresh[rows[late] - len(held)]
    return picked


class _Taker:
    """Takes samples off a stream of blocks."""

    def __init__(self, blocks: Iterable[Columns]) -> None:
        self._blocks = iter(blocks)
        self._rest: Columns = ()

    def take(self, count: int) -> Columns:
        """The next samples in new memory; fewer where the stream ends."""
        parts: list[Columns] = []
        while count:
            if not self._rest or not len(self._rest[0]):
                block = next(self._blocks, None)
                if block is None:
                    break
                self._rest = block
            parts.append(tuple(column[:count] for column in self._rest))
            self._rest = tuple(column[count:] for column in self._rest)
            count -= len(parts[-1][0])
        if not parts:
            return tuple(column[:0] for column in self._rest)
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
