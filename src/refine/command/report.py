"""`refine report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from refine.command.images import LABELED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refine.models.device import Compute
    from refine.proof.report.make import Wanted


@click.command()
@click.argument("defended", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@LABELED
@click.option("--no-stress", is_flag=True, help="Leave out the stress test, which takes most of the time.")
@click.option("--no-signs", is_flag=True, help="Do not look for signs of a backdoor in the delivered model.")
@click.option("--no-pictures", is_flag=True, help="Show none of the images.")
def report(
    defended: Path, images: Path, check: Path | None, no_stress: bool, no_signs: bool, no_pictures: bool
) -> None:
    """Write the page about a defended model for the people who have to approve it.

    DEFENDED is the folder that `refine defend` wrote, and IMAGES are the images that it was defended with. The page is
    DEFENDED/report.html: one file, which needs no network and can be printed. It contains some of the images, without
    anything else of their files. Results of the stress test and of the signs lie beside it as JSON.
    """
    import logging
    import sys

    from refine.command.images import listed
    from refine.core.machine import machine
    from refine.models.device import compute
    from refine.proof.report.make import Wanted

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    wanted = Wanted(stress=not no_stress, signs=not no_signs, pictures=not no_pictures, check=check)
    write(defended, listed([images]), wanted, compute(machine()))


def write(defended: Path, files: Sequence[Path], wanted: Wanted, compute: Compute) -> None:
    """Writes the page of today and prints its verdict; see `proof.report.make.make`."""
    from datetime import UTC, datetime

    from refine.proof.report.make import PAGE, make

    made = make(defended, files, wanted, datetime.now(UTC).date(), compute)
    for finding in (made.verdict, *made.findings):
        click.echo(finding.text)
    click.echo(f"See {defended / PAGE}.")
