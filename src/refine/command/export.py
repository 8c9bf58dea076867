"""`refine export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from refine.deployment.model import Model

BATCH = 64
PT2 = ".pt2"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--defense", type=click.Path(path_type=Path), help="Folder of a defense for MODEL, where it lies apart.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "pt2"]),
    help="ONNX, or a program of torch.export.  [default: as OUT ends, else onnx]",
)
@click.option("--check", "images", type=click.Path(path_type=Path), help="Images to compare the answers to.")
def export(model: Path, out: Path, defense: Path | None, form: str | None, images: Path | None) -> None:
    """Write the model in the folder MODEL as the one file OUT, for other programs.

    MODEL is what `refine defend` wrote, or the folder of a classifier. The file holds everything from pixels to
    probabilities, and what a program has to know about it. Its answers are compared with those of the model, for the
    images of --check and else for noise, and no file is left where they differ. ONNX needs the packages that
    `pip install -c constraints.txt -e '.[onnx]'` installs.
    """
    from typing import cast

    from refine.command.images import listed
    from refine.core.machine import machine
    from refine.deployment import export as exporting
    from refine.deployment.check import probe
    from refine.deployment.model import load
    from refine.models.device import compute

    files = listed([images]) if images else []
    threads = compute(machine()).threads
    loaded = load(model, defense, "cpu")
    batches = _read(loaded, files) if files else probe(loaded.side)
    chosen = cast(exporting.Format, form or ("pt2" if out.suffix == PT2 else "onnx"))
    checked = exporting.export(loaded, out, chosen, batches, threads)
    what = "images" if files else "images of noise"
    click.echo(
        f"{out} ({out.stat().st_size / 1e6:.1f} MB) gives the same class as {model} for {checked.same:,} of "
        f"{checked.images:,} {what}; probabilities differ by at most {checked.difference:.1e}"
    )


def _read(model: Model, files: Sequence[Path]) -> Iterator[Tensor]:
    import torch

    from refine.core.progress import progress
    from refine.deployment.inputs import pixels_of

    starts = range(0, len(files), BATCH)
    for start in progress(starts, "compare answers", len(starts), "batch"):
        yield torch.cat([pixels_of(model.card, file) for file in files[start : start + BATCH]])
