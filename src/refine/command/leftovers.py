"""`refine leftovers`."""

from __future__ import annotations

import click


@click.command()
@click.option("--remove", is_flag=True, help="Remove those that no process is using.")
def leftovers(remove: bool) -> None:
    """List the leftovers of stopped processes in this project, with their sizes.

    These are checkpoints of unfinished trainings, partly written outputs, and copies of the project in which
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
