"""Images a second of the input path, cold start, and how long a streamed training waits for data.

    python -m benchmarks.input_path

`rate`: some epochs of augmented batches from opened files, decoding and all else included, for the published
augmentation of both trainings: the plain way, a set that is kept (resident), and one that is streamed.
`cold`: from nothing to the first such batch, in a warm process, files in the page cache.
`wait`: the narrow train-backdoor of the default experiment over the streamed set; the share of its time in which
it waits for the next batch, and its rate beside that over the resident set.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from benchmarks import images, plain, trainings
from benchmarks.common import Report, Timing, interleaved, number, parser
from benchmarks.trainings import settled, train_epoch
from refine.backdoor.train import FIELDS
from refine.core.errors import command
from refine.models.device import Compute
from refine.shards.reading.reader import Shards
from refine.training.augment import augment
from refine.training.batches import Batches
from refine.training.recipe import Augment
from refine.training.training_set import Streamed, TrainingSet, open_training_set

WAYS = ("plain", "resident", "streamed")


@dataclass(frozen=True)
class Wanted:
    """What a training asks of its input path: augmentation, images in a batch, and fields beside each image."""

    augment: Augment
    batch_size: int
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where the data lies, and what reads it.

    Attributes:
        shards: folder of shards.
        png: folder of the same images as PNG files; it need not exist where the plain way is not asked for.
        workers: of the plain and the streamed way.
        buffer: images that are shuffled together, resident and streamed.
        compute: where batches go.
    """

    shards: Path
    png: Path
    workers: int
    buffer: int
    compute: Compute


class Opened(Protocol):
    """A data set that is ready."""

    def epoch(self, seed: int) -> Iterator[Tensor]:
        """Augmented pixels float [B, 3, H, W] in [0, 1], on the device, every image once."""


class Plain:
    """PNG files, one by one."""

    def __init__(self, place: Place, wanted: Wanted) -> None:
        self._device = place.compute.device
        self._loader = plain.loader(place.png, wanted.augment, wanted.batch_size, place.workers)

    def epoch(self, seed: int) -> Iterator[Tensor]:
        torch.manual_seed(seed)
        for pixels, labels in self._loader:
            labels.to(self._device)
            yield pixels.to(self._device)


class Ours:
    """Shards, through the project's own code."""

    def __init__(self, training_set: TrainingSet, place: Place, wanted: Wanted) -> None:
        device = place.compute.device
        buffer = max(place.buffer, wanted.batch_size)
        self._batches = Batches(training_set, wanted.batch_size, False, buffer, device)
        self._augment = wanted.augment
        self._generator = Generator(device)

    @torch.no_grad()
    def epoch(self, seed: int) -> Iterator[Tensor]:
        self._generator.manual_seed(seed)
        for batch in self._batches.epoch(seed):
            yield augment(batch.pixels, self._augment, self._generator)


def resident(place: Place, fields: tuple[str, ...]) -> TrainingSet:
    """The set as a training keeps it."""
    return open_training_set(place.shards, fields, place.compute)[0]


def streamed(place: Place, fields: tuple[str, ...]) -> TrainingSet:
    """The set as a training streams it where it is larger than REFINE_MEMORY."""
    return Streamed(Shards(place.shards, only_images=not fields), fields, place.workers)


def opened(way: str, place: Place, wanted: Wanted) -> Opened:
    """Opens the data set in one of `WAYS`, from nothing."""
    if way == "plain":
        return Plain(place, wanted)
    make = resident if way == "resident" else streamed
    return Ours(make(place, wanted.fields), place, wanted)


def published() -> dict[str, Wanted]:
    """What the two trainings of the paper ask for."""
    backdoor, refine = (params.recipe for params in trainings.paper_params())
    return {
        "flip": Wanted(backdoor.augment, backdoor.batch_size, FIELDS),
        "crop+flip+gray": Wanted(refine.augment, refine.batch_size, ()),
    }


def epochs(way: str, place: Place, wanted: Wanted, count: int, expected: int) -> float:
    """Seconds of opening and going through it so often."""
    start = settled(place.compute)
    data = opened(way, place, wanted)
    seen = sum(len(pixels) for seed in range(count) for pixels in data.epoch(seed))
    seconds = settled(place.compute) - start
    if seen != count * expected:
        raise AssertionError(f"{way} gave {seen} images, not {count * expected}")
    return seconds


def first_batch(way: str, place: Place, wanted: Wanted) -> float:
    """Seconds of opening and getting one batch."""
    start = settled(place.compute)
    stream = opened(way, place, wanted).epoch(0)
    next(stream)
    return settled(place.compute) - start


def each_way(work: Callable[[str, Wanted], float], repetitions: int, what: str) -> list[tuple[str, dict[str, Timing]]]:
    """Runs the work for every way, in rounds, for one augmentation after the other."""
    found = []
    for name, wanted in published().items():
        contestants = {way: (lambda way=way, wanted=wanted: work(way, wanted)) for way in WAYS}
        found.append((name, interleaved(contestants, repetitions, f"{what}, {name}")))
    return found


def rates(place: Place, given: argparse.Namespace) -> dict[str, Any]:
    """Images a second of all ways; an entry of the JSON."""
    found: dict[str, Any] = {}
    work = lambda way, wanted: epochs(way, place, wanted, given.epochs, given.images)  # noqa: E731
    for name, timings in each_way(work, given.repetitions, "input path"):
        summary = {way: timing.summary(given.epochs * given.images, "images") for way, timing in timings.items()}
        base = summary["plain"]["images_per_second"]
        ratios = {way: summary[way]["images_per_second"] / base for way in WAYS if way != "plain"}
        found[name] = {"batch_size": published()[name].batch_size, **summary, "ratio_to_plain": ratios}
    return found


def cold_starts(place: Place, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the first batch of all ways; an entry of the JSON."""
    work = lambda way, wanted: first_batch(way, place, wanted)  # noqa: E731
    found = each_way(work, given.repetitions, "cold start")
    return {name: {way: timing.summary() for way, timing in timings.items()} for name, timings in found}


def waiting(place: Place, given: argparse.Namespace) -> dict[str, Any]:
    """A narrow training over the streamed and over the resident set; an entry of the JSON."""
    params = trainings.default_params()[0]
    size = params.recipe.batch_size
    buffer = max(place.buffer, size)
    compute = place.compute
    waits: dict[str, list[float]] = {"share": [], "share_after_first_batch": [], "first_batch_seconds": []}

    def over(make: Callable[[Place, tuple[str, ...]], TrainingSet], note: bool) -> Callable[[], float]:
        batches = Batches(make(place, FIELDS), size, params.recipe.drop_last, buffer, compute.device)
        task = trainings.backdoor_task(params, batches, compute, compute.precision("auto"))

        def epoch() -> float:
            clocked = train_epoch(task, batches, compute)
            if note:
                later = clocked.seconds - clocked.first
                waits["share"].append(clocked.waited / clocked.seconds)
                waits["share_after_first_batch"].append((clocked.waited - clocked.first) / later)
                waits["first_batch_seconds"].append(clocked.first)
            return clocked.seconds

        return epoch

    contestants = {"resident": over(resident, note=False), "streamed": over(streamed, note=True)}
    timings = interleaved(contestants, given.repetitions, "training")
    summary = {way: timing.summary(given.images, "images") for way, timing in timings.items()}
    medians = {name: Timing(values).median for name, values in waits.items()}
    return {
        "batch_size": size,
        **summary,
        "streamed_to_resident": summary["streamed"]["images_per_second"] / summary["resident"]["images_per_second"],
        "waiting": {**waits, **{f"{name}_median": value for name, value in medians.items()}},
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("input_path", "Input path: rate, cold start, and waiting for data.", repetitions=3)
    parts = {"rate": rates, "cold": cold_starts, "wait": waiting}
    options.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts), help="what to measure")
    options.add_argument("--images", type=int, default=50_000, help="(default: %(default)s)")
    options.add_argument("--epochs", type=int, default=10, help="of a repetition of `rate` (default: %(default)s)")
    options.add_argument("--workers", type=int, default=2, help="of the plain and streamed ways (default: %(default)s)")
    options.add_argument("--buffer", type=int, default=10_000, help="images shuffled together (default: %(default)s)")
    given = options.parse_args(arguments)
    report = Report("input_path", given)
    name = images.available()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = images.write(folder / "shards", given.images, name)
        place = Place(shards, folder / "png", given.workers, given.buffer, report.compute)
        if {"rate", "cold"} & set(given.parts):
            images.write_png(place.png, given.images, name)
        results = {part: parts[part](place, given) for part in given.parts}
    report.write(results, ["what", *WAYS, "resident/plain", "streamed/plain"], _rows(results), images=name)


def _rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, summary in results.get("rate", {}).items():
        ratios = [f"{summary['ratio_to_plain'][way]:.2f}" for way in WAYS[1:]]
        rows.append([f"images/s, {name}", *(number(summary[way]["images_per_second"]) for way in WAYS), *ratios])
    for name, summary in results.get("cold", {}).items():
        rows.append([f"s to first batch, {name}", *(number(summary[way]["seconds_median"]) for way in WAYS), "", ""])
    if summary := results.get("wait"):
        rows.append(
            ["training images/s", "-", *(number(summary[way]["images_per_second"]) for way in WAYS[1:]), "", ""]
        )
        for share in ("share", "share_after_first_batch"):
            shown = f"{summary['waiting'][f'{share}_median']:.2%}"
            rows.append([f"waiting, {share.replace('_', ' ')}", "-", "-", shown, "", ""])
    return rows


if __name__ == "__main__":
    command(main)
