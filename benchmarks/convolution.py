"""Rates of single 3x3 convolutions: forward, back to the maps, and the gradient of the weights, torch's and ours.

    python -m benchmarks.convolution

The layers tell from how many channels on `refine.training.convolution` pays. Channels-last, float32; an operation has
two FLOP for each multiply-accumulate of the convolution, borders counted like the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.common import Report, interleaved, number, parser
from refine.core.errors import command
from refine.training.convolution import weight_gradient

LAYERS = [
    *((8, 8, 32), (16, 16, 16), (32, 32, 8), (32, 64, 8), (64, 64, 4)),
    *((24, 24, 32), (48, 48, 16), (48, 192, 15), (96, 96, 8), (192, 192, 7), (192, 192, 4)),
    *((64, 64, 32), (128, 64, 32), (128, 128, 16), (256, 128, 16)),
    *((256, 256, 8), (512, 256, 8), (512, 512, 4), (1024, 512, 4), (512, 512, 2)),
]
"""Channels in, channels out, side of the maps: of the default's networks, of `presets/cpu.yaml`, of the paper's."""


@dataclass
class Layer:
    """One convolution with maps that it takes and a gradient that it gets back."""

    maps: Tensor
    weight: Tensor
    gradient: Tensor

    @classmethod
    def random(cls, inputs: int, outputs: int, side: int, batch: int) -> Layer:
        """Of random values."""
        sizes = (batch, inputs, side, side), (outputs, inputs, 3, 3), (batch, outputs, side, side)
        return cls(*(torch.randn(size).to(memory_format=torch.channels_last) for size in sizes))

    @property
    def ways(self) -> dict[str, Callable[[], object]]:
        """What is measured, by name."""
        return {
            "forward": lambda: functional.conv2d(self.maps, self.weight, padding=1),
            "to maps": lambda: self._backward(maps=True),
            "weights, torch": lambda: self._backward(maps=False),
            "weights, ours": lambda: weight_gradient(self.maps, self.gradient),
        }

    def _backward(self, maps: bool) -> object:
        """torch's own, of the maps or else of the weights."""
        step, dilation, border = [1, 1], [1, 1], [1, 1]
        return torch.ops.aten.convolution_backward(
            self.gradient,
            self.maps,
            self.weight,
            None,
            step,
            border,
            dilation,
            False,
            [0, 0],
            1,
            [maps, not maps, False],
        )


def repeated(work: Callable[[], object], seconds: float) -> tuple[Callable[[], float], int]:
    """Does the work so often that it takes about so many seconds, and tells how often that is."""

    def timed(times: int) -> float:
        start = perf_counter()
        for _ in range(times):
            work()
        return perf_counter() - start

    timed(2)
    count = max(1, round(seconds / timed(2) * 2))
    return lambda: timed(count), count


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("convolution", "Single convolutions, forward and backward.", repetitions=5)
    options.add_argument("--batch", type=int, default=64, help="images (default: %(default)s)")
    options.add_argument("--seconds", type=float, default=0.2, help="length of a repetition (default: %(default)s)")
    given = options.parse_args(arguments)
    report = Report("convolution", given, needs_torch=False)  # processors only
    results = []
    for inputs, outputs, side in LAYERS:
        name = f"{inputs} to {outputs}, {side} x {side}"
        flops = 2 * 9 * inputs * outputs * side**2 * given.batch
        prepared = {
            way: repeated(work, given.seconds)
            for way, work in Layer.random(inputs, outputs, side, given.batch).ways.items()
        }
        timings = interleaved({way: run for way, (run, _) in prepared.items()}, given.repetitions, name)
        rates = {way: timings[way].told(count * flops, "flops") for way, (_, count) in prepared.items()}
        torchs, ours = (rates[f"weights, {whose}"]["flops_per_second"] for whose in ("torch", "ours"))
        results.append({"layer": name, "ways": rates, "ours_to_torch": ours / torchs})
    ways = list(results[0]["ways"])
    rows = [
        [
            result["layer"],
            *(number(result["ways"][way]["flops_per_second"] / 1e9) for way in ways),
            f"{result['ours_to_torch']:.2f}",
        ]
        for result in results
    ]
    report.write(results, ["GFLOP/s", *ways, "ours/torch"], rows)


if __name__ == "__main__":
    command(main)
