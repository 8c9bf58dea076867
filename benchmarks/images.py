"""Data sets to measure on, written into temporary folders: shards by the project's own writer, and PNG files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from benchmarks.common import PROJECT
from refine.core.machine import machine
from refine.core.progress import progress
from refine.download.source import Source
from refine.shards.format.manifest import Description
from refine.shards.writer import Sample, write_shards
from refine.sources import cifar10

CLASSES = 10
SIDE = 32
SYNTHETIC = "synthetic"
_PHOTOS = 8


def samples(count: int, name: str = SYNTHETIC) -> Iterator[Sample]:
    """So many images of 32 pixels, none of them poisoned.

    Args:
        count: of images.
        name: `cifar10`, taken from REFINE_MIRROR, or `synthetic`, which is noise.
    """
    if name == SYNTHETIC:
        yield from _noise(count)
        return
    offered = Source(machine().mirror, own_images=PROJECT / "data/own/images", cache=PROJECT / "data/.cache")
    for sample in islice(cifar10.open_source(cifar10.Params(), offered).train, count):
        yield replace(sample, info={**sample.info, "poisoned": False})


def available() -> str:
    """The better data set at hand: `cifar10` where REFINE_MIRROR is set, else `synthetic`."""
    return "cifar10" if machine().mirror else SYNTHETIC


def _noise(count: int) -> Iterator[Sample]:
    generator = torch.Generator().manual_seed(0)
    for key in range(count):
        image = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        yield Sample(key, image.numpy(), key % CLASSES, {"source_index": key, "poisoned": False})


def write(folder: Path, count: int, name: str = SYNTHETIC, samples_per_shard: int = 1000) -> Path:
    """Writes a folder of shards, and returns it."""
    folder.mkdir(parents=True)
    description = Description(
        source=name,
        classes=[f"class-{label}" for label in range(CLASSES)],
        side=SIDE,
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2023, 0.1994, 0.2010],
        samples_per_shard=samples_per_shard,
    )
    write_shards(folder, progress(samples(count, name), f"write {count:,} images", count, "image"), description)
    return folder


def write_strangers(folder: Path, shards: int, per_shard: int, distinct: int) -> Path:
    """Writes shards as another program would, `00000.tar` and so on, with JPEG files of 320 x 240 pixels.

    Only so many of them differ; the others are links to the same bytes, so that a large set fits the disk.
    """
    folder.mkdir(parents=True)
    photos = [_jpeg(number) for number in range(_PHOTOS)]
    for number in progress(range(shards), f"write {shards:,} shards", shards, "shard"):
        place = folder / f"{number:05d}.tar"
        if number >= distinct:
            place.hardlink_to(folder / f"{number % distinct:05d}.tar")
            continue
        with tarfile.open(place, "w") as archive:
            for row in range(per_shard):
                label = (number + row) % CLASSES
                for ending, content in (("cls", str(label).encode()), ("jpg", photos[(number + row) % _PHOTOS])):
                    header = tarfile.TarInfo(f"{number:05d}{row:06d}.{ending}")
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
    return folder


def _jpeg(number: int) -> bytes:
    generator = torch.Generator().manual_seed(number)
    coarse = torch.randint(0, 256, (12, 16, 3), generator=generator, dtype=torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_png(folder: Path, count: int, name: str = SYNTHETIC) -> Path:
    """Writes a folder of PNG files, one for each image, in a folder for each class; returns it."""
    for label in range(CLASSES):
        (folder / f"class-{label}").mkdir(parents=True)
    for sample in progress(samples(count, name), f"write {count:,} files", count, "image"):
        Image.fromarray(sample.image).save(folder / f"class-{sample.label}/{sample.key:06d}.png")
    return folder
