"""The command `refine`, a click group."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import click

from refine.command.check import check
from refine.command.defend import defend
from refine.command.dvc import dvc
from refine.command.export import export
from refine.command.importing import import_
from refine.command.leftovers import leftovers
from refine.command.materialize import materialize
from refine.command.predict import predict
from refine.command.report import report
from refine.command.signs import signs
from refine.command.stress import stress
from refine.command.unlock import unlock
from refine.command.verify import verify
from refine.core.errors import command

GROUP = "refine.commands"


class Commands(click.Group):
    """The commands of this package, and those that installed packages offer as entry points of the group `GROUP`.

    An entry point names a click command. `refine --help` loads all of them, so a command should import what it needs
    when it runs.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        offered = [] if own else list(entry_points(group=GROUP, name=cmd_name))
        found: click.Command | None = offered[0].load() if offered else own
        return found

    def invoke(self, ctx: click.Context) -> Any:
        return command(lambda: super(Commands, self).invoke(ctx))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="refine", message="%(package)s %(version)s")
def refine() -> None:
    """Backdoor attacks on image classifiers, and the REFINE defense.

    The experiment in params.yaml is a DVC pipeline: `refine dvc repro` runs the stages that are out of date. For a
    classifier and images of your own, see `refine import`, `refine defend`, `refine report` and `refine export`.
    """


for each in (
    check, defend, dvc, export, import_, leftovers, materialize, predict, report, signs, stress, unlock, verify
):  # fmt: skip
    refine.add_command(each)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and ends the process; errors that the user can fix are printed in one sentence, exit status 1."""
    command(lambda: refine(arguments, prog_name="refine"))
