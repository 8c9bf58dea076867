"""What tests share: small data sets, a copy of the project to run stages in, and the real `dvc` in it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from forks import with_forks
from refine.shards.format.manifest import Description, Manifest
from refine.shards.writer import Sample, write_shards

PROJECT = Path(__file__).parents[1]
WATCHDOG = 1200
"""Seconds after which a command counts as hung, on any machine under any load; no test needs nearly as many."""

NARROW: dict[str, object] = {"name": "unet", "first_channels": 8}
"""The narrowest transform."""

TINY_PARAMS = {
    "download": {"source": "folder", "samples_per_shard": 8},
    "sources": {"folder": {"side": 16}},
    "other_images": [],
    "poison_dataset": {"attack": {"name": "badnets"}, "seed": 1},
    "attacks": {"badnets": {"rate": 0.2}},
    "train_backdoor": {
        "seed": 1,
        "network": {"name": "resnet18", "width": 8},
        "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.05}, "schedule": {"name": "one_cycle"}},
    },
    "train_refine": {
        "seed": 1,
        "transform": NARROW,
        "input_space": "pixel",
        "snapshots": 2,
        "recipe": {"epochs": 2, "batch_size": 8, "optimizer": {"lr": 0.01}},
    },
    "splits": [],
    "split_settings": {},
    "defenses": [],
    "defense_data": {"seed": 1, "labeled": 0.25},
    "defense_settings": {},
    "evaluate": {"batch_size": 16, "gallery_images": 3},
}


def synthetic(count: int, side: int = 16, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images uint8 [count, 3, side, side] whose brightness tells their label, and int64 [count] labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 60, (count, 3, side, side), generator=generator)
    return (noise + (labels * (190 // classes)).view(-1, 1, 1, 1)).to(torch.uint8), labels


def description(side: int = 16, classes: int = 3, samples_per_shard: int = 8) -> Description:
    """A description of a synthetic data set."""
    return Description(
        source="synthetic",
        classes=[f"class-{label}" for label in range(classes)],
        side=side,
        mean=[0.5, 0.5, 0.5],
        std=[0.25, 0.25, 0.25],
        samples_per_shard=samples_per_shard,
    )


def write_split(folder: Path, images: Tensor, labels: Tensor, classes: int = 3, samples_per_shard: int = 8) -> Manifest:
    """Writes images as a clean split of shards."""
    folder.mkdir(parents=True)
    samples = (
        Sample(key, image.permute(1, 2, 0).numpy(), int(label), {"source_index": key, "file": f"{key}.png"})
        for key, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    return write_shards(folder, samples, description(images.shape[-1], classes, samples_per_shard))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks, by kind and content, with the sums that they must have."""
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_params(project: Path, content: dict[str, object]) -> None:
    """Writes a parameters file."""
    (project / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def tiny_project(folder: Path) -> Path:
    """A copy of the project in which the whole pipeline takes seconds: 48 own images in three classes."""
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", "README.md"):
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, _made(folder) / name)
    for name in ("src", "stages", "docs"):
        if (PROJECT / name).exists():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    (folder / "data/own/attack").mkdir(parents=True)
    (folder / "data/own/attack/.gitkeep").touch()
    (folder / "data/own/model").mkdir()
    (folder / "data/own/model/.gitkeep").touch()
    for name in ("split", "other"):
        (folder / "data" / name).mkdir()
        shutil.copy(PROJECT / f"data/{name}/.gitignore", folder / "data" / name)
    for split, count in (("train", 48), ("test", 24)):
        images, labels = synthetic(count, seed=len(split))
        for key, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            target = _made(folder / "data/own/images" / split / f"class-{label}") / f"{key:03d}.png"
            Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(target)
    write_params(folder, TINY_PARAMS)
    return folder


def environment(**changes: str) -> dict[str, str]:
    """An environment for subprocesses: this interpreter first, DVC quiet and alone, byte code as on any machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("REFINE_", "DVC_"))}
    clean.pop("PYTHONDONTWRITEBYTECODE", None)
    clean.pop("PYTHONPATH", None)
    return {
        **clean,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_NO_ANALYTICS": "1",
        "REFINE_THREADS": "1",
        **changes,
    }


def run(project: Path, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command in a project, and gives what it printed."""
    return subprocess.run(
        command,
        cwd=project,
        env=with_forks(env or environment()),
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )


def run_stage(project: Path, stage: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs a stage's script as `dvc.yaml` does, without DVC."""
    return run(project, "python", f"stages/{stage}.py", env=environment(PYTHONPATH="src", **changes))


def is_one_sentence(result: subprocess.CompletedProcess[str], *mentions: str) -> bool:
    """Whether a stage failed as it should: non-zero, no traceback, one error line that mentions what it must."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    said = result.returncode != 0 and "Traceback" not in result.stderr and len(errors) == 1
    return said and all(mention in errors[0] for mention in mentions)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
