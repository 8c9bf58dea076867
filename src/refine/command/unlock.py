"""`refine unlock`."""

from __future__ import annotations

import click


@click.command()
def unlock() -> None:
    """Remove broken lock files of DVC, as a kill or a full disk leaves them.

    With such a file, every DVC command fails. A file that a process may be using is kept.
    """
    from refine.upkeep.processes import here
    from refine.upkeep.rwlock import REMOVED, mend

    for path in mend(here()):
        click.echo(f"{path} {REMOVED}", err=True)
