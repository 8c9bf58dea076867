"""`refine report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("defended", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--no-stress", is_flag=True, help="Leave out the stress test, which takes most of the time.")
@click.option("--no-signs", is_flag=True, help="Do not look for signs of a backdoor in the delivered model.")
@click.option("--no-pictures", is_flag=True, help="Show none of the images.")
def report(defended: Path, images: Path, no_stress: bool, no_signs: bool, no_pictures: bool) -> None:
    """Write the page about a defended model for the people who have to approve it.

    DEFENDED is the folder that `refine defend` wrote, and IMAGES are the images that it was defended with. The page is
    DEFENDED/report.html: one file, which needs no network and can be printed. It contains some of the images, without
    anything else of their files. Results of the stress test and of the signs lie beside it as JSON.
    """
    import logging
    import sys
    from datetime import UTC, datetime

    from refine.command.images import listed
    from refine.core.machine import machine
    from refine.models.device import compute
    from refine.proof.report.make import PAGE, Wanted, make

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    wanted = Wanted(stress=not no_stress, signs=not no_signs, pictures=not no_pictures)
    made = make(defended, listed([images]), wanted, datetime.now(UTC).date(), compute(machine()))
    click.echo(f"{made.verdict.text}\nSee {defended / PAGE}.")
