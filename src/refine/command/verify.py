"""`refine verify`."""

from __future__ import annotations

from pathlib import Path

import click

_SAID = {True: "the same", False: "NOT THE SAME", None: "not compared"}


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder of the defended model; by default, the one of the page."
)
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the images that it was defended with.")
@click.option("--check", type=click.Path(path_type=Path), help="Folder of the labeled images in it.")
def verify(report: Path, folder: Path | None, images: Path | None, check: Path | None) -> None:
    """Compare a report with what it is about.

    REPORT is a page that `refine defend` or `refine report` wrote. The sums (SHA-256) in it are computed again from the
    folder of the defended model, from the installed program and, with --images and --check, from the images. The exit
    status is 1 if one of them differs.
    """
    from refine.command.images import listed
    from refine.core.errors import UserError
    from refine.proof.page.verify import compare

    given, labeled = (listed([path]) if path else [] for path in (images, check))
    found = compare(report, folder or report.parent, given, labeled)
    for name, same in found.items():
        click.echo(f"{name:<11} {_SAID[same]}")
    differ = [name for name, same in found.items() if same is False]
    if differ:
        raise UserError(
            f"{report} is not about this {', '.join(differ)}; ask for the page again, or for what it is about"
        )
