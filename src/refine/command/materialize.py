"""`refine materialize`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out")
def materialize(folder: Path, out: str) -> None:
    """Write a folder of shards that needs no other one, to a folder or a bucket.

    FOLDER holds shards, such as data/poisoned/train, which has only the images that differ from data/raw/train. OUT is
    a folder for all of them, or an address such as s3://BUCKET/NAME, for programs that read webdataset shards.
    """
    from refine.core.machine import machine
    from refine.shards.materialize import materialize as write

    manifest = write(folder, out, machine())
    click.echo(f"{out} holds {manifest.samples:,} samples in {len(manifest.shards):,} shards")
