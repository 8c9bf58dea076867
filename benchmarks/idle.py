"""`dvc repro` with nothing to do, against `dvc status`.

    python -m benchmarks.idle

In a temporary repository that holds this project with 72 small images of its own and trainings of seconds. Both
commands start Python and DVC and look at all files; what repro takes longer, it does beyond looking.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import yaml

from benchmarks import images
from benchmarks.common import PROJECT, Report, interleaved, parser
from refine.core.errors import UserError, command

PARAMS = {
    "download": {"source": "folder", "samples_per_shard": 8},
    "sources": {"folder": {"side": 16}},
    "other_images": [],
    "poison_dataset": {"attack": {"name": "badnets"}, "seed": 1},
    "attacks": {"badnets": {}},
    "train_backdoor": {
        "seed": 1,
        "network": {"name": "resnet18", "width": 8},
        "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.05}},
    },
    "train_refine": {
        "seed": 1,
        "transform": {"name": "unet", "first_channels": 8},
        "input_space": "pixel",
        "snapshots": 1,
        "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.01}},
    },
    "splits": [],
    "split_settings": {},
    "defenses": [],
    "defense_data": {"seed": 1},
    "defense_settings": {},
    "evaluate": {"batch_size": 16, "gallery_images": 3},
}


def repository(folder: Path) -> Path:
    """A copy of the project in a repository of its own, ready for `dvc repro`."""
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(PROJECT / name, folder)
    for name in ("src", "stages"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "data/own/attack").mkdir(parents=True)
    (folder / "data/own/attack/.gitkeep").touch()
    for name in ("split", "other"):
        (folder / "data" / name).mkdir()
        shutil.copy(PROJECT / f"data/{name}/.gitignore", folder / "data" / name)
    for split, count in (("train", 48), ("test", 24)):
        images.write_png(folder / f"data/own/images/{split}", count)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    _run(folder, "git", "init", "-q")
    _run(folder, "dvc", "init", "-q")
    shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
    return folder


def _run(folder: Path, *words: str) -> str:
    """Runs a command there, with this interpreter's programs first, and returns what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REFINE_", "DVC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**inherited, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    result = subprocess.run(  # noqa: S603
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise UserError(f"{' '.join(words)} failed: {result.stdout}{result.stderr}")
    return result.stdout


def seconds(folder: Path, targets: list[str], verb: str) -> float:
    """Seconds of `dvc status` or `dvc repro` where everything is up to date."""
    start = perf_counter()
    said = _run(folder, "dvc", verb, *targets)
    taken = perf_counter() - start
    if "up to date" not in said or "Running" in said:
        raise AssertionError(f"dvc {verb} found something to do: {said}")
    return taken


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("idle", "dvc repro with nothing to do, against dvc status.", repetitions=9)
    options.add_argument("--targets", nargs="*", default=[], help="stages (default: all)")
    given = options.parse_args(arguments)
    report = Report("idle", given, needs_torch=False)
    with TemporaryDirectory() as temporary:
        folder = repository(Path(temporary) / "project")
        _run(folder, "dvc", "repro", *given.targets)
        work = {verb: (lambda verb=verb: seconds(folder, given.targets, verb)) for verb in ("status", "repro")}
        timings = interleaved(work, given.repetitions, "dvc")
    ratio = timings["repro"].median / timings["status"].median
    rows = [[f"dvc {verb}", f"{timing.median:.2f}"] for verb, timing in timings.items()]
    results = {**{verb: timing.summary() for verb, timing in timings.items()}, "repro_to_status": ratio}
    report.write(results, ["command", "s"], [*rows, ["repro/status", f"{ratio:.2f}"]])


if __name__ == "__main__":
    command(main)
