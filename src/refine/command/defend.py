"""`refine defend`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from refine.models.classifier import ClassifierCard
    from refine.shards.writer import Sample

SAMPLES_PER_SHARD = 1000


@click.command()
@click.argument("classifier", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the defense.")
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="Parameters file with the section train_refine.",
)
def defend(classifier: Path, images: Path, out: Path, file: Path) -> None:
    """Train a REFINE defense for the classifier in the folder CLASSIFIER.

    IMAGES is a folder of clean images without triggers, of the kind that the classifier is made for. They need no
    labels, and may be in subfolders. Each is resized to the input size of the classifier. The training runs in one
    process.
    """
    import logging
    import sys
    from tempfile import TemporaryDirectory

    from refine.core.errors import UserError
    from refine.core.machine import machine
    from refine.core.params import ParamsFile
    from refine.defenses.refine.training.params import TrainRefineParams

    params = ParamsFile(file).section("train_refine", TrainRefineParams)
    if out.exists():
        raise UserError(f"{out} already exists; give another folder, or remove it")

    from refine.defenses.refine.training.train import train_refine
    from refine.models.card import read_card
    from refine.models.classifier import ClassifierCard
    from refine.models.device import compute
    from refine.training.training_set import open_training_set

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    resolved = compute(machine())
    with TemporaryDirectory() as scratch:
        write(images, read_card(classifier, ClassifierCard), Path(scratch))
        training_set, manifest = open_training_set(Path(scratch), (), resolved)
        try:
            train_refine(params, training_set, classifier, resolved, out)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {out} was not written") from None
    click.echo(f"{out} defends {classifier}; it was trained on {manifest.samples} images")


def write(images: Path, card: ClassifierCard, folder: Path) -> None:
    """Writes the images of a folder and its subfolders as shards, in the input size of a classifier.

    Raises:
        UserError: an image cannot be read.
    """
    from refine.command.images import listed
    from refine.core.progress import progress
    from refine.shards.format.manifest import Description
    from refine.shards.writer import Sample, write_shards

    files = listed([images])
    description = Description(
        source="images",
        classes=card.classes,
        side=card.input_side,
        mean=card.normalization.mean,
        std=card.normalization.std,
        samples_per_shard=SAMPLES_PER_SHARD,
    )

    def samples() -> Iterator[Sample]:
        for key, file in enumerate(progress(files, "read images", len(files), "image")):
            yield Sample(key, card.read_image(file), 0, {})

    write_shards(folder, samples(), description)
