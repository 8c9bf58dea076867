"""A list of twelve runs on two nodes of one processor each, beside the same list in one process on one processor.

    python -m benchmarks.cluster

The list is made of four attacks on small images that this program draws, and three defenses of each; a run takes
about half a minute, most of it to start programs. The ideal is half the time of the one process, which is
kept on one processor; a node is told that it has one, and computes in one thread. Everything happens in clones of the
last commit in a temporary folder. Both ways have to come to the same figures. Linux only, and alone on a machine of two
processors.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.common import PROJECT, Report, number, parser
from refine.core.errors import UserError, command

ATTACKS = ("badnets", "blended", "none", "wanet")
DEFENSES = ("refine", "shrinkpad", "ft")
NODES = 2
_LIST = "experiments/twelve.yaml"
_SIDE = 16
_RECIPE = {"epochs": 1, "batch_size": 50}


def project(folder: Path, images: int) -> None:
    """A clone of this checkout whose preset is small, and whose list has twelve runs on so many images."""
    _ran(PROJECT, "git", "clone", "-q", str(PROJECT), str(folder))
    generator = np.random.default_rng(1)
    for split, count in (("train", images), ("test", images // 4)):
        for key in range(count):
            label = key % 4
            pixels = generator.integers(0, 100, (_SIDE, _SIDE, 3), dtype=np.uint8)
            pixels[:, 4 * label : 4 * label + 4] += 150
            target = folder / f"data/own/images/{split}/class-{label}/{key:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
    preset = folder / "presets/quick.yaml"
    params = yaml.safe_load(preset.read_text(encoding="utf-8"))
    params["download"]["source"] = "folder"
    params["sources"] = {"folder": {"side": _SIDE}}
    params["train_backdoor"]["network"] = {"name": "resnet18", "width": 16}
    params["train_backdoor"]["recipe"] |= {**_RECIPE, "augment": {}}
    params["train_refine"]["encoder"] |= _RECIPE
    params["train_refine"]["recipe"] |= _RECIPE
    params["defense_settings"] = {"ft": {"recipe": {"epochs": 1}}}
    text = yaml.safe_dump(params, sort_keys=False)
    for path in (preset, folder / "params.yaml"):
        path.write_text(text, encoding="utf-8")
    rows = [{"attack": attack, "defense": defense} for attack in ATTACKS for defense in DEFENSES]
    (folder / _LIST).write_text(yaml.safe_dump({"preset": "quick", "rows": rows}), encoding="utf-8")
    shutil.rmtree(folder / "metrics/runs")
    _ran(folder, "git", "add", "--force", "data/own/images", _LIST)
    _ran(folder, "git", "-c", "user.name=nobody", "-c", "user.email=no@body", "commit", "-qam", "twelve runs")


def serial(folder: Path) -> float:
    """Seconds of the list in one process, which has one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return _listed(folder)
    finally:
        os.sched_setaffinity(0, before)


def on_nodes(folder: Path) -> float:
    """Seconds of the list on two nodes, without those that the nodes take to start."""
    with _nodes() as address:
        return _listed(folder, "--engine", "ray", RAY_ADDRESS=address)


def figures(folder: Path) -> dict[str, Any]:
    """What was recorded, by the names of the files, but for times."""
    found = {
        str(path.relative_to(folder)): json.loads(path.read_text(encoding="utf-8"))
        for path in folder.glob("metrics/runs/*/*.json")
    }
    for content in found.values():
        content.pop("runtime", None)
    return found


_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def _nodes() -> Iterator[str]:
    with _environment(_TOKEN):  # which Ray reads once, when it is imported
        from ray.cluster_utils import Cluster

        small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
        made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        try:
            for _ in range(NODES - 1):
                made.add_node(**small)
            yield str(made.address)
        finally:
            made.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Some variables for a while, and none of this project's."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("REFINE_")]:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _listed(folder: Path, *options: str, **more: str) -> float:
    paths = os.pathsep.join(str(folder / name) for name in ("src", "lab"))
    alone = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "REFINE_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    with _environment({**alone, **more}):
        started = time.monotonic()
        _ran(folder, str(Path(sys.executable).with_name("refine")), "run-list", _LIST, *options)
        return time.monotonic() - started


def _ran(folder: Path, *words: str) -> None:
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode:
        raise UserError(f"{' '.join(words)} failed: {ended.stderr.strip()[-2000:]}")


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    made = parser("cluster", "A list of twelve runs on two nodes, beside one process.", 1)
    made.add_argument("--images", type=int, default=2400, help="to train on, which decides how long a run takes")
    options = made.parse_args(arguments)
    report = Report("cluster", options, needs_torch=False)
    alone, together = [], []
    for _ in range(options.repetitions):
        with TemporaryDirectory() as folder:
            one, other = Path(folder) / "one", Path(folder) / "other"
            project(one, options.images)
            shutil.copytree(one, other, symlinks=True)
            alone.append(serial(one))
            together.append(on_nodes(other))
            count = len(list((other / "metrics/runs").iterdir()))
            if count != len(ATTACKS) * len(DEFENSES) or figures(one) != figures(other):
                raise UserError(f"{count} of 12 runs came home, or their figures differ from those of the one process")
    ratios = [took / (single / NODES) for single, took in zip(alone, together, strict=True)]
    results = {"one_process_seconds": alone, "two_nodes_seconds": together, "of_the_ideal": ratios}
    rows = [
        [number(single), number(took), number(ratio)]
        for single, took, ratio in zip(alone, together, ratios, strict=True)
    ]
    report.write(results, ("one process, s", "two nodes, s", "of the ideal"), rows)


if __name__ == "__main__":
    command(main)
