"""Memory and time over the size of a data set: streamed, neither grows faster than it must.

    python -m benchmarks.memory

`peak`: a fresh process goes through one epoch of augmented batches, streamed or resident, at some multiples of a
data set; this measures the peak of its resident memory above what it had before it opened the set, and the peak of its
largest worker, which includes what worker and parent share. Linux only, which reports the peak of each process.
`time`: seconds for an epoch of the narrow train-backdoor of the default experiment over a streamed set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from benchmarks import images, trainings
from benchmarks.common import Report, Timing, interleaved, memory_of, number, parser
from benchmarks.input_path import Place, opened, published, streamed
from benchmarks.trainings import train_epoch
from refine.backdoor.train import FIELDS
from refine.core.errors import command
from refine.models.device import Compute
from refine.training.batches import Batches

WAYS = ("streamed", "resident")


def one_epoch(way: str, place: Place, threads: int) -> dict[str, float]:
    """What one epoch of batches takes; called in a process of its own."""
    torch.set_num_threads(threads)
    before = memory_of("VmRSS")
    start = perf_counter()
    seen = sum(len(pixels) for pixels in opened(way, place, published()["flip"]).epoch(0))
    return {
        "images": seen,
        "seconds": perf_counter() - start,
        "before_bytes": before,
        "peak_bytes": memory_of("VmHWM"),
        "largest_worker_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def peak(way: str, place: Place) -> dict[str, float]:
    """One epoch in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(one_epoch, way, place, place.compute.threads).result()


def peaks(places: dict[int, Place], given: argparse.Namespace) -> dict[str, Any]:
    """Both ways at all sizes, in rounds; an entry of the JSON."""
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}

    def contestant(way: str, scale: int) -> float:
        runs.setdefault((way, scale), []).append(peak(way, places[scale]))
        return runs[way, scale][-1]["seconds"]

    work = {
        f"{way} {scale}x": (lambda way=way, scale=scale: contestant(way, scale)) for way in WAYS for scale in given.peak
    }
    interleaved(work, given.repetitions, "memory")
    found: dict[str, Any] = {way: {} for way in WAYS}
    for (way, scale), entries in runs.items():
        above = Timing([run["peak_bytes"] - run["before_bytes"] for run in entries]).median
        worker = Timing([run["largest_worker_bytes"] for run in entries]).median
        found[way][f"{scale}x"] = {
            "images": entries[0]["images"],
            "bytes_above_start_median": above,
            "largest_worker_bytes_median": worker if way == "streamed" and given.workers else None,
            "repetitions": entries,
        }
    return found


def times(places: dict[int, Place], given: argparse.Namespace, compute: Compute) -> dict[str, Any]:
    """Epochs of a narrow training at all sizes, in rounds; an entry of the JSON."""
    params = trainings.default_params()[0]
    size = params.recipe.batch_size

    def contestant(scale: int) -> float:
        place = places[scale]
        batches = Batches(
            streamed(place, FIELDS), size, params.recipe.drop_last, max(place.buffer, size), compute.device
        )
        task = trainings.backdoor_task(params, batches, compute, compute.precision("auto"))
        return train_epoch(task, batches, compute).seconds

    contestant(min(given.time))
    work = {f"{scale}x": (lambda scale=scale: contestant(scale)) for scale in given.time}
    timings = interleaved(work, given.repetitions, "epochs")
    base = timings[f"{min(given.time)}x"].median / min(given.time)
    return {
        f"{scale}x": {
            **timings[f"{scale}x"].summary(scale * given.images, "images"),
            "to_linear": timings[f"{scale}x"].median / (scale * base),
        }
        for scale in given.time
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("memory", "Memory and time over the size of a data set.", repetitions=3)
    options.add_argument(
        "--parts", nargs="+", choices=["peak", "time"], default=["peak", "time"], help="what to measure"
    )
    options.add_argument("--images", type=int, default=5000, help="of the data set, once (default: %(default)s)")
    options.add_argument("--peak", type=int, nargs="+", default=[1, 10], help="multiples (default: %(default)s)")
    options.add_argument("--time", type=int, nargs="+", default=[1, 2, 4], help="multiples (default: %(default)s)")
    options.add_argument("--workers", type=int, default=2, help="of the stream (default: %(default)s)")
    options.add_argument("--buffer", type=int, default=2000, help="images shuffled together (default: %(default)s)")
    given = options.parse_args(arguments)
    report = Report("memory", given)
    scales = {scale for part in given.parts for scale in getattr(given, part)}
    with TemporaryDirectory() as temporary:
        places = {
            scale: Place(
                images.write(Path(temporary) / str(scale), scale * given.images),
                Path(temporary) / "png",
                given.workers,
                given.buffer,
                report.compute,
            )
            for scale in sorted(scales)
        }
        results: dict[str, Any] = {}
        if "peak" in given.parts:
            results["peak"] = peaks(places, given)
        if "time" in given.parts:
            results["time"] = times(places, given, report.compute)
    report.write(results, ["what", "images", "figure", "note"], _rows(results, given), images=images.SYNTHETIC)


def _rows(results: dict[str, Any], given: argparse.Namespace) -> list[list[str]]:
    rows = []
    for way, entries in results.get("peak", {}).items():
        for entry in entries.values():
            worker = entry["largest_worker_bytes_median"]
            note = f"worker {number(worker / 2**20)} MiB" if worker else ""
            rows.append(
                [
                    f"peak, {way}",
                    f"{entry['images']:,}",
                    f"{number(entry['bytes_above_start_median'] / 2**20)} MiB",
                    note,
                ]
            )
    for scale, entries in results.get("time", {}).items():
        count = int(scale[:-1]) * given.images
        rows.append(
            [
                "epoch, streamed",
                f"{count:,}",
                f"{number(entries['seconds_median'])} s",
                f"{entries['to_linear']:.3f} of linear",
            ]
        )
    return rows


if __name__ == "__main__":
    command(main)
