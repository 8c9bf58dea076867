"""`refine predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor

    from refine.deployment.model import Model

BATCH = 64
NAMED = 10
"""Damaged files that are named; of more the number is told."""

Row = dict[str, Any]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--defense", type=click.Path(path_type=Path), help="Folder of a defense for MODEL, where it lies apart.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, for other programs.")
@click.option("--json", "form", flag_value="json", help="Print a JSON list, for other programs.")
def predict(model: Path, images: tuple[Path, ...], defense: Path | None, form: str | None) -> None:
    """Classify images with the model in the folder MODEL.

    MODEL is what `refine defend` wrote, or the folder of a classifier. IMAGES are files or folders; each image is
    brought to the size that the classifier takes. The table shows its most probable class, and the probability. With a
    defense, the column "undefended" names the class that the classifier gives without it, where that is another one:
    such images are worth a look.
    """
    import json

    import pandas as pd

    from refine.command.images import listed
    from refine.core.errors import UserError
    from refine.core.machine import machine
    from refine.deployment.model import load
    from refine.models.device import compute

    files = listed(images)
    loaded = load(model, defense, compute(machine()).device)
    damaged: dict[Path, str] = {}
    rows = list(_rows(loaded, files, damaged))
    if damaged:
        raise UserError(_told(damaged))
    table = pd.DataFrame(rows).round({"probability": 4})
    if form == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif form == "csv":
        click.echo(table.drop(columns="label").to_csv(index=False), nl=False)
    else:
        click.echo(table.drop(columns="label").fillna("").to_string(index=False))


def _rows(model: Model, files: Sequence[Path], damaged: dict[Path, str]) -> Iterator[Row]:
    """A row for each file, and the errors of those that cannot be read."""
    from refine.core.errors import UserError
    from refine.core.progress import progress
    from refine.deployment.inputs import pixels_of

    waiting: list[tuple[Path, Tensor]] = []
    for number, file in enumerate(progress(files, "predict", len(files), "image"), 1):
        try:
            waiting.append((file, pixels_of(model.card, file)))
        except UserError as error:
            damaged[file] = str(error)
        if len(waiting) == BATCH or (number == len(files) and waiting):
            yield from _predicted(model, waiting)
            waiting = []


def _predicted(model: Model, images: list[tuple[Path, Tensor]]) -> Iterator[Row]:
    import torch

    pixels = torch.cat([each for _, each in images])
    predictions = model.predictions(pixels)
    bare = model.undefended.predictions(pixels) if model.undefended else predictions
    for (file, _), said, without in zip(images, predictions, bare, strict=True):
        row = {
            "file": click.format_filename(file),
            "label": said.label,
            "class": said.name,
            "probability": said.probability,
        }
        if model.undefended:
            row["undefended"] = without.name if without.label != said.label else None
        yield row


def _told(damaged: dict[Path, str]) -> str:
    if len(damaged) == 1:
        return next(iter(damaged.values()))
    names = ", ".join(map(click.format_filename, list(damaged)[:NAMED]))
    more = f" and {len(damaged) - NAMED:,} more" if len(damaged) > NAMED else ""
    return f"{len(damaged):,} files cannot be read as images ({names}{more}); replace them or remove them"
