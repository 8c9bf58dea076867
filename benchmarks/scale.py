"""What a data set costs as it grows: time and memory of indexing, poisoning, reading and evaluating it.

    python -m benchmarks.scale

`sizes`: the data set of the default experiment in size, at some multiples of it: reading all images, poisoning them
with BadNets at 10 %, and answering the test images from disk.
`strangers`: shards of another program with JPEG files, as many as ImageNet has: indexing, poisoning 1 %, and the first
batches of a streamed epoch; and the answers of an untrained classifier to the test images.
`bucket`: shards from an S3 server on this machine that waits before each answer: read cold and warm, beside what the
connection alone and the decoding alone can do.

Each piece of work has a process of its own; memory is the peak above what the process had before. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import images
from benchmarks.common import Report, memory_of, number, parser
from benchmarks.served import served
from refine.attacks import badnets
from refine.core.errors import command
from refine.core.machine import Machine
from refine.defending.protocol.defense import NoDefense
from refine.download.indexing import write_indexes
from refine.download.source import Source
from refine.evaluation.answers import answers
from refine.evaluation.metrics import measure
from refine.evaluation.test_sets import TestSets
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import Normalization
from refine.models.device import Compute
from refine.poisoning.attack import Setting
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.shards.format import elsewhere
from refine.shards.reading.folder import complete
from refine.shards.reading.reader import Shards, loaded
from refine.shards.reading.stored import open_split
from refine.sources import webdataset
from refine.training.batches import Batches
from refine.training.training_set import Streamed

PARTS = ("sizes", "strangers", "bucket")
_MIB = 2**20
_SIDE = 224
_AT_ONCE = 256 * 32**2


def measured(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a piece of work says, and its time and memory, in a fresh process.

    It is spawned, so that it begins small; the workers of a stream are then forked, as in a stage.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(multiprocessing.set_start_method, "fork", True).result()
        return pool.submit(clocked, work, *arguments).result()


def clocked(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The same in this process."""
    torch.set_num_threads(1)
    before, began = memory_of("VmRSS"), time.perf_counter()
    said = work(*arguments)
    return {
        **said,
        "seconds": time.perf_counter() - began,
        "bytes_above_start": memory_of("VmHWM") - before,
        "largest_worker_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


# -- what is measured


def read(folder: Path, workers: int, machine: Machine) -> dict[str, Any]:
    """Decodes all images."""
    return {"images": sum(len(chunk.keys) for chunk in loaded(Shards(folder, machine=machine), workers))}


def poison(train: Path, test: Path, out: Path, rate: float) -> dict[str, Any]:
    """Applies BadNets."""
    clean = open_clean(train, test)
    manifest = clean.train.manifest
    attack = badnets.Attack(badnets.Params(rate=rate), Setting(len(manifest.classes), manifest.side, name="badnets"))
    outputs = Outputs.below(out)
    record = poison_dataset("badnets", attack, 1, clean, outputs)
    written = {name: sum(path.stat().st_size for path in (out / name).iterdir()) for name in ("train", "test")}
    return {"images": manifest.samples, "poisoned": len(record.poisoned), "bytes_written": written}


def evaluate(clean: Path, triggered: Path) -> dict[str, Any]:
    """Answers of a small classifier to test images that stay on the disk, in batches of as many pixels at any side."""
    tests = TestSets(open_split(clean), open_split(triggered))
    manifest = tests.clean.manifest
    network = named(name="resnet18", width=8)
    normalization = Normalization(mean=manifest.mean, std=manifest.std)
    system = NoDefense(classifiers.build(network, len(manifest.classes), normalization, manifest.side)).eval()
    at_once = max(1, _AT_ONCE // manifest.side**2)  # what a network makes of them takes more room than they do
    found = answers(system, tests, at_once, Compute(torch.device("cpu"), 1))
    return {"images": len(tests.clean.keys) + len(tests.triggered.keys), **measure(found, tests.truth)}


def index(train: str, test: str, out: Path, machine: Machine) -> dict[str, Any]:
    """Indexes shards that lie elsewhere."""
    params = webdataset.Params(train=train, test=test, side=_SIDE, resize=256)
    source = Source(None, own_images=out / "none", cache=out / "none")
    return {
        "images": write_indexes(
            webdataset.open_source(params, source), "webdataset", out / "train", out / "test", machine
        )
    }


def batches(folder: Path, count: int, workers: int, buffer: int) -> dict[str, Any]:
    """The first batches of a streamed epoch, and the memory of this process on the way."""
    cut = Batches(Streamed(Shards(folder), ("label",), workers), 32, False, buffer, torch.device("cpu"))
    memory, seen = [], 0
    for place, batch in enumerate(islice(cut.epoch(0), count)):
        seen += len(batch.pixels)
        if place % max(1, count // 10) == 0:
            memory.append(memory_of("VmRSS"))
    return {"images": seen, "bytes_over_time": memory}


def fetch(addresses: list[str]) -> dict[str, Any]:
    """Fetches shards one after the other, as fast as the connection gives them."""
    return {"bytes": sum(len(elsewhere.fetched(address, Machine())) for address in addresses)}


# -- the parts


def sizes(home: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All work at some multiples of the default data set; an entry of the JSON."""
    found = {}
    for scale in given.sizes:
        place = home / f"{scale}x"
        train = images.write(place / "train", scale * given.images * 4 // 5)
        test = images.write(place / "test", scale * given.images // 5)
        raw = sum(path.stat().st_size for path in train.iterdir())
        entry: dict[str, Any] = {"images": scale * given.images, "bytes_raw_train": raw}
        entry["read"] = measured(read, train, 0, Machine())
        entry["poison"] = measured(poison, train, test, place / "poisoned", 0.1)
        entry["evaluate"] = measured(evaluate, test, place / "poisoned/test")
        entry["poison"]["to_reading"] = entry["poison"]["seconds"] / entry["read"]["seconds"]
        entry["poison"]["share_of_raw"] = entry["poison"]["bytes_written"]["train"] / raw
        found[f"{scale}x"] = entry
    return found


def strangers(home: Path, given: argparse.Namespace) -> dict[str, Any]:
    """A set of the size of ImageNet; an entry of the JSON."""
    images.write_strangers(home / "shards", given.shards, given.per_shard, min(given.shards, given.distinct))
    images.write_strangers(home / "tests", given.test_shards, given.per_shard, min(given.test_shards, given.distinct))
    braces = [f"{home}/{name}/{{00000..{count - 1:05d}}}.tar" for name, count in _counts(given)]
    found = {"index": measured(index, *braces, home / "raw", Machine())}
    found["poison"] = measured(poison, home / "raw/train", home / "raw/test", home / "poisoned", 0.01)
    found["batches"] = measured(batches, home / "poisoned/train", given.batches, given.workers, given.buffer)
    found["evaluate"] = measured(evaluate, home / "raw/test", home / "poisoned/test")
    return found


def _counts(given: argparse.Namespace) -> list[tuple[str, int]]:
    return [("shards", given.shards), ("tests", given.test_shards)]


def bucket(home: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Shards from a server that takes its time; an entry of the JSON."""
    folder = images.write_strangers(home / "shards", given.bucket_shards, given.per_shard, given.bucket_shards)
    names = sorted(path.name for path in folder.iterdir())
    with served(folder, given.latency) as server:
        braces = f"{{00000..{len(names) - 2:05d}}}.tar", names[-1]
        none, all_of_it = Machine(cache=0, root=home), Machine(root=home)
        measured(index, *(f"{server.address}/{name}" for name in braces), home / "remote", none)
        measured(index, *(f"{folder}/{name}" for name in braces), home / "local", none)
        pieces = {
            "link": measured(fetch, [f"{server.address}/{name}" for name in names[:-1]]),
            "decoding": measured(read, home / "local/train", given.workers, none),
            "cold": measured(read, home / "remote/train", given.workers, all_of_it),
        }
        asked = server.asked
        pieces["warm"] = measured(read, home / "remote/train", given.workers, all_of_it)
        requests = server.asked - asked
    count = complete(home / "remote/train").samples
    rates = {name: count / piece["seconds"] for name, piece in pieces.items()}
    lesser = min(rates["link"], rates["decoding"])
    return {
        "images_per_second": rates,
        "cold_to_lesser": rates["cold"] / lesser,
        "requests_when_warm": requests,
        "pieces": pieces,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("scale", "Time and memory over the size of a data set.", repetitions=1)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    options.add_argument("--images", type=int, default=5000, help="of the data set, once (default: %(default)s)")
    options.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 3, 10, 30], help="multiples (default: %(default)s)"
    )
    options.add_argument("--shards", type=int, default=1281, help="of strangers (default: %(default)s)")
    options.add_argument("--test-shards", type=int, default=5, help="likewise (default: %(default)s)")
    options.add_argument("--per-shard", type=int, default=1000, help="samples in each (default: %(default)s)")
    options.add_argument("--distinct", type=int, default=10, help="shards that differ (default: %(default)s)")
    options.add_argument("--batches", type=int, default=1000, help="of 32 images (default: %(default)s)")
    options.add_argument("--bucket-shards", type=int, default=13, help="in the bucket (default: %(default)s)")
    options.add_argument("--latency", type=float, default=0.02, help="seconds before an answer (default: %(default)s)")
    options.add_argument("--workers", type=int, default=2, help="of a stream (default: %(default)s)")
    options.add_argument("--buffer", type=int, default=2000, help="images shuffled together (default: %(default)s)")
    given = options.parse_args(arguments)
    report = Report("scale", given)
    results = {}
    for part in given.parts:
        with TemporaryDirectory() as folder:
            results[part] = {"sizes": sizes, "strangers": strangers, "bucket": bucket}[part](Path(folder), given)
    report.write(results, ["what", "images", "seconds", "MiB above start", "note"], list(_rows(results)))


def _rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for entry in results.get("sizes", {}).values():
        for name in ("read", "poison", "evaluate"):
            note = f"{entry[name]['to_reading']:.2f} of reading" if name == "poison" else ""
            rows.append(_row(name, entry[name], note))
    for name, entry in results.get("strangers", {}).items():
        rows.append(_row(f"strangers, {name}", entry, ""))
    if "bucket" in results:
        found = results["bucket"]
        for name, rate in found["images_per_second"].items():
            rows.append([f"bucket, {name}", "", "", "", f"{number(rate)} images/s"])
        asked = found["requests_when_warm"]
        rows.append(["bucket", "", "", "", f"cold {found['cold_to_lesser']:.2f} of the lesser, {asked} requests warm"])
    return rows


def _row(name: str, entry: dict[str, Any], note: str) -> list[str]:
    return [name, f"{entry['images']:,}", number(entry["seconds"]), number(entry["bytes_above_start"] / _MIB), note]


if __name__ == "__main__":
    command(main)
