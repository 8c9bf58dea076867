"""`refine materialize`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def materialize(folder: Path, out: Path) -> None:
    """Write a folder of shards that needs no other one.

    FOLDER holds shards, such as data/poisoned/train, which has only the images that differ from data/raw/train. OUT is
    a folder for all of them, for programs that read webdataset shards.
    """
    from refine.core.machine import machine
    from refine.shards.materialize import materialize as write

    manifest = write(folder, out, machine())
    click.echo(f"{out} holds {manifest.samples:,} samples in {len(manifest.shards):,} shards")
