"""In what the trainings of further defenses spend their time: arithmetic of networks, or something else.

    python -m benchmarks.defenses

Each defense is trained on noise by the settings of a parameters file, for a few epochs, through the very function that
its stage calls. The profiler adds up the time of each operation. `products`: convolutions and matrix products, which no
other way of training could leave out. `other arithmetic`: normalization, activations, losses, the optimizer, and the
augmentation. `rest`: what the training took beyond its operations, such as Python, reading shards and writing files.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import PROJECT, Report, parser
from benchmarks.images import CLASSES, SIDE
from refine.core.errors import command
from refine.core.params import ParamsFile, Section
from refine.core.registry import DEFENSES, TRAINING, part
from refine.defending.params import further, settings
from refine.defending.train import Task
from refine.models import classifier as classifiers
from refine.models.architecture import Architecture
from refine.models.classifier import Classifier, ClassifierCard, Normalization
from refine.models.device import Compute
from refine.shards.format.manifest import Description
from refine.shards.writer import Sample, write_shards

_PRODUCTS = ("conv", "::mm", "::addmm", "linear")
"""In the names of operations; batched products are those of the augmentation."""
_SHARD = 1000


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("defenses", "Where the trainings of further defenses spend their time.", repetitions=1)
    options.add_argument("--params", default="presets/compare.yaml", help="names the defenses (default: %(default)s)")
    options.add_argument("--images", type=int, default=2000, help="that a defense gets (default: %(default)s)")
    options.add_argument("--epochs", type=int, default=2, help="of each recipe (default: %(default)s)")
    given = options.parse_args(arguments)
    report = Report("defenses", given)
    file = ParamsFile(PROJECT / given.params)
    trained = [name for name in further(file) if part(DEFENSES, name, TRAINING)]
    results: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch:
        _write_images(Path(scratch) / "images", given.images)
        for name in trained:
            own = brief(settings(file, name), given.epochs)
            results.append({"defense": name, **measure(name, own, Path(scratch), report.compute, file)})
    headers = ["defense", "seconds", "products", "other arithmetic", "rest"]
    rows = [[each["defense"], f"{each['seconds']:.1f}", *(f"{each[kind]:.0%}" for kind in _SHARES)] for each in results]
    report.write(results, headers, rows)


_SHARES = ("products", "other_arithmetic", "rest")


def brief(of: Section, epochs: int) -> Section:
    """Settings with so many epochs in each of their recipes, and in their own."""
    changes: dict[str, Any] = {}
    for name in type(of).model_fields:
        value = getattr(of, name)
        if name == "epochs":
            changes[name] = epochs
        elif isinstance(value, Section) and "epochs" in type(value).model_fields:
            changes[name] = value.model_copy(update={"epochs": epochs})
    return of.model_copy(update=changes)


def measure(name: str, own: Section, scratch: Path, compute: Compute, file: ParamsFile) -> dict[str, float]:
    """Trains a defense once; its seconds, and the share of them in each kind of work."""
    folder = scratch / name
    folder.mkdir()
    classifier, card = _classifier(file)
    task = Task(own, 1, classifier, card, scratch / "images", compute, folder)
    training = part(DEFENSES, name, TRAINING)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        training.train(task)  # type: ignore[union-attr]
        seconds = time.perf_counter() - started
    return {"seconds": seconds, **shares(profiler.key_averages(), seconds)}


def shares(events: Any, seconds: float) -> dict[str, float]:
    """The share of the seconds that went into products, into other operations, and into neither."""
    taken = {event.key: event.self_cpu_time_total / 1e6 for event in events if event.key.startswith("aten::")}
    products = sum(value for key, value in taken.items() if any(word in key for word in _PRODUCTS))
    operations = sum(taken.values())
    return {
        "products": products / seconds,
        "other_arithmetic": (operations - products) / seconds,
        "rest": max(0.0, 1 - operations / seconds),
    }


def _classifier(file: ParamsFile) -> tuple[Classifier, ClassifierCard]:
    """Random, of the architecture that the parameters name."""
    network = file.section("train_backdoor.network", Architecture)
    normalization = Normalization(mean=[0.5] * 3, std=[0.25] * 3)
    torch.manual_seed(0)
    made = classifiers.build(network, CLASSES, normalization, SIDE)
    card = ClassifierCard(
        weights_sha256="0" * 64,
        architecture=network,
        classes=[str(label) for label in range(CLASSES)],
        normalization=normalization,
        input_side=SIDE,
        training={},
    )
    return classifiers.freeze(made), card


def _write_images(folder: Path, count: int) -> None:
    """Noise with labels, and with the flags of a split."""
    random = np.random.RandomState(0)
    description = Description(
        source="noise",
        classes=[str(label) for label in range(CLASSES)],
        side=SIDE,
        mean=[0.5] * 3,
        std=[0.25] * 3,
        samples_per_shard=_SHARD,
    )

    def samples() -> Any:
        for key in range(count):
            image = random.randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            yield Sample(key, image, key % CLASSES, {"split_clean": key % 5 == 0, "split_poisoned": key % 20 == 1})

    folder.mkdir()
    write_shards(folder, samples(), description)


if __name__ == "__main__":
    command(main)
