"""`refine predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from refine.defending.protocol.defense import Defense
    from refine.models.classifier import ClassifierCard
    from refine.models.device import Compute

BATCH = 64

Row = tuple[str, str, float]
"""File, class name, probability."""


@click.command()
@click.argument("classifier", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--defense", type=click.Path(path_type=Path), help="Folder of a defense for the classifier.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for other programs.")
def predict(classifier: Path, images: tuple[Path, ...], defense: Path | None, as_csv: bool) -> None:
    """Classify images with the classifier in the folder CLASSIFIER.

    IMAGES are files or folders. Each image is resized to the input size of the classifier. The table shows its most
    probable class, and the probability.
    """
    import pandas as pd

    from refine.command.images import listed
    from refine.core.machine import machine
    from refine.defending.loading import load
    from refine.defending.protocol.defense import NoDefense
    from refine.models import classifier as classifiers
    from refine.models.card import read_card
    from refine.models.device import compute

    files = listed(images)
    card = read_card(classifier, classifiers.ClassifierCard)
    system = load(defense, classifier) if defense else NoDefense(classifiers.load(classifier)[0]).eval()
    rows = _predicted(system, card, files, compute(machine()))
    table = pd.DataFrame(rows, columns=["file", "class", "probability"]).round({"probability": 4})
    click.echo(table.to_csv(index=False) if as_csv else table.to_string(index=False), nl=not as_csv)


def _predicted(system: Defense, card: ClassifierCard, files: Sequence[Path], compute: Compute) -> Iterator[Row]:
    import numpy as np
    import torch

    from refine.core.progress import progress
    from refine.shards.reading.pixels import in_batches

    system.to(compute.device)
    for start in progress(range(0, len(files), BATCH), "predict", -(-len(files) // BATCH), "batch"):
        some = files[start : start + BATCH]
        images = torch.from_numpy(np.stack([card.read_image(file) for file in some])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            for pixels in in_batches(images, BATCH, compute.device):
                best = system.probabilities(pixels).max(dim=1)
                for file, label, share in zip(some, best.indices.tolist(), best.values.tolist(), strict=True):
                    yield click.format_filename(file), card.classes[label], share
