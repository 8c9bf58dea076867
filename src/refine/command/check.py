"""`refine check`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("params.yaml"))
def check(file: Path) -> None:
    """Check a whole parameters file, and the settings of the machine.

    FILE is params.yaml by default. There is no output if everything is right.
    """
    from refine.command import parameters
    from refine.core.machine import machine

    machine()
    parameters.check(file)
