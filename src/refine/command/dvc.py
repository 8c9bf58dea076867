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
    """Run a DVC command, such as `refine dvc repro`, after checks with clear error messages.

    \b
    any command        removes broken lock files, like `refine unlock`
    repro, exp run     check the parameters that DVC would use, like `refine check`; changes by -S
                       are applied to a copy of params.yaml first
    plots show, diff   name the missing files that plots are drawn from

    Then DVC runs with the same arguments.
    """
    from refine.command.before_dvc import look

    look(arguments, Path.cwd(), lambda sentence: click.echo(sentence, err=True))
    own = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    sys.stdout.flush()
    os.execv(shutil.which("dvc", path=own) or "dvc", ["dvc", *arguments])  # noqa: S606 (DVC, without a shell)
