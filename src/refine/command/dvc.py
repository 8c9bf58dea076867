"""`refine dvc`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND ...")
def dvc(arguments: tuple[str, ...]) -> None:
    """Run a command of DVC, such as `refine dvc repro`, with a look at what DVC says little about.

    \b
    Any command          Broken lock files are removed, as by `refine unlock`.
    repro, exp run       The parameters that DVC would use are checked, as by `refine check`. Those given by -S
                         count: they are put into a copy of params.yaml, by DVC's own code.
    plots show, diff     Files that plots are drawn from and that are missing are named.

    Then DVC runs, with the arguments as they are.
    """
    from refine.command.before_dvc import look

    look(arguments, Path.cwd(), lambda sentence: click.echo(sentence, err=True))
    own = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    sys.stdout.flush()
    os.execv(shutil.which("dvc", path=own) or "dvc", ["dvc", *arguments])  # noqa: S606 (DVC, without a shell)
