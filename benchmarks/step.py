"""Rate of training steps: ours (the real tasks in the real loop) against the plain way, and as a share of the hardware.

    python -m benchmarks.step

Ours cuts its batches from uint8 images on the device and augments them, which counts; the plain way is given
batches that are ready. A product of two square matrices in the same rounds tells what the hardware can do. The
work of a step is that of its convolutions and linear layers, two FLOP for each multiply-accumulate: forward as
torch's FlopCounterMode counts it, times three for what is trained, and for the frozen classifier once for the
pseudo-labels, once forward and once backward to its input.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import trainings
from benchmarks.common import Report, Timing, interleaved, number, parser
from benchmarks.images import CLASSES, SIDE
from benchmarks.plain import PlainBackdoor, PlainRefine
from benchmarks.trainings import Repeated, Task, settled, train_epoch
from refine.backdoor.params import BackdoorRecipe, TrainBackdoorParams
from refine.core.errors import command
from refine.defenses.refine.model.transform import built
from refine.defenses.refine.training.params import TrainRefineParams
from refine.models.architecture import Architecture
from refine.models.device import Compute
from refine.training.batches import Batches
from refine.training.training_set import Resident

BATCHES = 8
"""Different batches that the steps go through."""

IMAGES = 50_000
"""Of an epoch of CIFAR-10."""


@dataclass(frozen=True)
class Configuration:
    """A training to measure.

    Attributes:
        network: of the classifier; frozen in train-refine.
        params: of the training.
    """

    network: Architecture
    params: TrainBackdoorParams | TrainRefineParams

    def changed(self, **changes: Any) -> Configuration:
        """The same with other values in the recipe."""
        recipe = self.params.recipe.model_copy(update=changes)
        return replace(self, params=self.params.model_copy(update={"recipe": recipe}))

    @property
    def flops_per_image(self) -> int:
        """Of a training step."""
        forward = _forward_flops(trainings.classifier(self.network, Compute(torch.device("cpu"), 1)))
        if isinstance(self.params, TrainRefineParams):
            forward += _forward_flops(built(self.params.transform, trainings.card(self.network)))
        return 3 * forward

    def task(self, compute: Compute, batches: Batches, precision: str) -> Task:
        """Ours."""
        if isinstance(self.params, TrainRefineParams):
            return trainings.refine_task(self.params, self.network, batches, compute, precision)
        return trainings.backdoor_task(self.params, batches, compute, precision)

    def plain(self, compute: Compute) -> PlainBackdoor | PlainRefine:
        """The plain way."""
        settings = self.params.recipe.optimizer
        if isinstance(self.params, TrainRefineParams):
            return PlainRefine(trainings.defense(self.params, self.network, compute), self.params.loss, settings)
        return PlainBackdoor(trainings.classifier(self.network, compute).train(), settings)


def configurations(device: str) -> dict[str, Configuration]:
    """All that can be measured: as published, and with the networks and recipes of the default experiment.

    Published is a batch of 256 for train-refine; processors take 64, of which the plain way needs seconds.
    The default's pseudo-labels are asked for in each step, as the plain way does.
    """
    backdoor, refine = trainings.paper_params()
    narrow_backdoor, narrow_refine = trainings.default_params()
    return {
        "refine": Configuration(backdoor.network, refine).changed(batch_size=256 if device == "cuda" else 64),
        "backdoor": Configuration(backdoor.network, backdoor),
        "refine-narrow": Configuration(
            narrow_backdoor.network, narrow_refine.model_copy(update={"pseudo_labels": "each_step"})
        ),
        "backdoor-narrow": Configuration(narrow_backdoor.network, narrow_backdoor),
    }


class Ours:
    """Steps of a real task in the real loop; `run` gives the seconds of so many of them, after `skip` others."""

    def __init__(self, configuration: Configuration, compute: Compute, precision: str, skip: int) -> None:
        self._compute = compute
        self._skip = skip
        recipe = configuration.params.recipe
        images, labels = _noise(BATCHES * recipe.batch_size)
        fields = (labels, torch.zeros_like(labels)) if isinstance(recipe, BackdoorRecipe) else ()
        training_set = Resident(images, fields, compute.device)
        self._batches = Batches(training_set, recipe.batch_size, True, recipe.shuffle_buffer, compute.device)
        self._task = configuration.task(compute, self._batches, precision)

    def run(self, steps: int) -> float:
        return train_epoch(self._task, Repeated(self._batches, self._skip + steps), self._compute, self._skip).seconds


class Plain:
    """Steps of the plain way; `run` gives the seconds of so many of them."""

    def __init__(self, configuration: Configuration, compute: Compute) -> None:
        self._compute = compute
        self._plain = configuration.plain(compute)
        size = configuration.params.recipe.batch_size
        images, labels = _noise(BATCHES * size)
        pixels, labels = (images / 255).to(compute.device), labels.to(compute.device)
        self._batches = list(zip(torch.split(pixels, size), torch.split(labels, size), strict=True))

    def run(self, steps: int) -> float:
        start = settled(self._compute)
        for step in range(steps):
            self._plain.step(*self._batches[step % BATCHES])
        return settled(self._compute) - start


class Product:
    """Products of two square matrices; `run` gives the seconds of so many of them."""

    def __init__(self, side: int, kind: torch.dtype, compute: Compute) -> None:
        self._compute = compute
        self._pair = [torch.randn(side, side, device=compute.device).to(kind) for _ in range(2)]
        self._out = torch.empty_like(self._pair[0])

    def run(self, count: int) -> float:
        start = settled(self._compute)
        for _ in range(count):
            torch.mm(*self._pair, out=self._out)
        return settled(self._compute) - start


@dataclass
class Contestant:
    """Something to run, how often in one repetition, and the peak of its memory on a CUDA device in bytes."""

    run: Callable[[int], float]
    count: int
    peak: int | None

    def __call__(self) -> float:
        return self.run(self.count)


def prepared(build: Callable[[], Ours | Plain | Product], seconds: float, compute: Compute) -> Contestant:
    """Builds a contestant, warms it up, and finds out how often it has to run for so many seconds."""
    gc.collect()
    cuda = compute.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(compute.device)
        before = torch.cuda.memory_allocated(compute.device)
    run = build().run
    run(1)
    count = max(1, round(seconds / run(1)))
    peak = torch.cuda.max_memory_allocated(compute.device) - before if cuda else None
    return Contestant(run, count, peak)


def measure(name: str, configuration: Configuration, compute: Compute, given: argparse.Namespace) -> dict[str, Any]:
    """Both ways and matrix products, interleaved; an entry of the JSON."""
    precision = compute.precision(given.precision)
    kinds = {"fp32": torch.float32}
    if "bf16" in (precision, compute.precision("auto")):  # elsewhere it is emulated and takes a hundred times as long
        kinds["bf16"] = torch.bfloat16
    builders: dict[str, Callable[[], Ours | Plain | Product]] = {
        "plain": lambda: Plain(configuration, compute),
        "ours": lambda: Ours(configuration, compute, precision, given.skip),
        **{kind: partial(Product, given.matrix, dtype, compute) for kind, dtype in kinds.items()},
    }
    contestants = {who: prepared(build, given.seconds, compute) for who, build in builders.items()}
    timings = interleaved(contestants, given.repetitions, name)
    work = 2 * given.matrix**3
    matrix = {kind: timings[kind].summary(contestants[kind].count * work, "flops") for kind in kinds}
    flops = configuration.flops_per_image
    batch = configuration.params.recipe.batch_size
    plain, ours = (_way(timings[who], contestants[who], batch, flops, matrix) for who in ("plain", "ours"))
    return {
        "configuration": name,
        "batch_size": batch,
        "precision": precision,
        "flops_per_image": flops,
        "matrix_product": matrix,
        "plain": plain,
        "ours": {**ours, "operations": operations(contestants["ours"].run, compute) if given.profile else None},
        "ratio": ours["images_per_second"] / plain["images_per_second"],
        "ours_minutes_for_150_epochs_of_cifar10": 150 * IMAGES / ours["images_per_second"] / 60,
    }


def operations(run: Callable[[int], float], compute: Compute, most: int = 12) -> dict[str, float]:
    """Shares of the time that our steps spend in single operations, the largest ones."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if compute.device.type == "cuda" else [])
    with profile(activities=activities) as profiler:
        run(4)
    name = "self_device_time_total" if compute.device.type == "cuda" else "self_cpu_time_total"
    taken = {event.key: float(getattr(event, name)) for event in profiler.key_averages()}
    largest = sorted(taken, key=lambda key: -taken[key])[:most]
    return {key: taken[key] / sum(taken.values()) for key in largest}


def _way(timing: Timing, contestant: Contestant, batch: int, flops: int, matrix: dict[str, Any]) -> dict[str, Any]:
    summary = timing.summary(contestant.count * batch, "images")
    rate = summary["images_per_second"] * flops
    shares = {name: rate / measured["flops_per_second"] for name, measured in matrix.items()}
    return {
        **summary,
        "steps": contestant.count,
        "flops_per_second": rate,
        "share_of_matrix_product": shares,
        "peak_memory_bytes": contestant.peak,
    }


def _forward_flops(network: nn.Module) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, SIDE, SIDE))
    return int(counter.get_total_flops())


def _noise(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % CLASSES


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("step", "Training steps, ours against the plain way.", repetitions=5)
    names = ["refine", "backdoor", "refine-narrow", "backdoor-narrow"]
    options.add_argument("--configurations", nargs="+", choices=names, default=names)
    options.add_argument("--batch", type=int, nargs="+", help="batch sizes instead of each configuration's own")
    options.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="of our steps")
    options.add_argument("--compile", action="store_true", help="let torch compile our networks")
    options.add_argument("--profile", action="store_true", help="tell in which operations our steps spend their time")
    options.add_argument("--seconds", type=float, default=3.0, help="length of a repetition (default: %(default)s)")
    options.add_argument("--skip", type=int, default=1, help="our steps before the clock (default: %(default)s)")
    options.add_argument("--matrix", type=int, help="side of the matrices (default: 2048, CUDA 8192)")
    given = options.parse_args(arguments)
    report = Report("step", given)
    device = report.compute.device.type
    given.matrix = given.matrix or (8192 if device == "cuda" else 2048)
    known = configurations(device)
    results = []
    for name in given.configurations:
        recipe = known[name].params.recipe
        for size in given.batch or [recipe.batch_size]:
            buffer = max(size, recipe.shuffle_buffer)
            changed = known[name].changed(batch_size=size, shuffle_buffer=buffer, compile=given.compile)
            results.append(measure(name, changed, report.compute, given))
    headers = [
        "step",
        "batch",
        "precision",
        "plain img/s",
        "ours img/s",
        "ratio",
        "of bf16 mm",
        "of fp32 mm",
        "peak MiB",
    ]
    report.write(results, headers, [_row(result) for result in results])
    for result in results:
        shares = result["ours"]["operations"] or {}
        lines = [f"{share:6.1%}  {name}" for name, share in shares.items()]
        sys.stdout.write("".join(f"{line}\n" for line in [f"in {result['configuration']}:", *lines] if lines))


def _row(result: dict[str, Any]) -> list[str]:
    ours = result["ours"]
    peak, shares = ours["peak_memory_bytes"], ours["share_of_matrix_product"]
    return [
        result["configuration"],
        str(result["batch_size"]),
        result["precision"],
        number(result["plain"]["images_per_second"]),
        number(ours["images_per_second"]),
        f"{result['ratio']:.2f}",
        *(f"{shares[kind]:.1%}" if kind in shares else "-" for kind in ("bf16", "fp32")),
        number(peak and peak / 2**20),
    ]


if __name__ == "__main__":
    command(main)
