"""`refine leftovers`."""

from __future__ import annotations

import click


@click.command()
@click.option("--remove", is_flag=True, help="Remove what no process is using.")
def leftovers(remove: bool) -> None:
    """List what stopped processes left behind in this project, with its size.

    That is: checkpoints of trainings that did not end, outputs that were only begun, and copies of the project in which
    `dvc exp run --temp` was killed.
    """
    from refine.upkeep.leftovers import leftovers, table
    from refine.upkeep.processes import here

    project, found, used = here(), [], 0
    for left in leftovers(project):
        found.append(left.row(project))
        used += left.used
        if remove and not left.used:
            left.remove()
    click.echo(table(found))
    if remove and found:
        click.echo(f"{len(found) - used} removed, {used} in use")
