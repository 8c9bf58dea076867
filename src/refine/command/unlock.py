"""`refine unlock`."""

from __future__ import annotations

import click


@click.command()
def unlock() -> None:
    """Remove lock files of DVC that a kill or a full disk has left broken.

    Until then every command of DVC fails. A file that a process may be using stays.
    """
    from refine.upkeep.processes import here
    from refine.upkeep.rwlock import REMOVED, mend

    for path in mend(here()):
        click.echo(f"{path} {REMOVED}", err=True)
