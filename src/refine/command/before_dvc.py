"""Checks before DVC runs, for errors that DVC itself reports in a way that helps little."""

from __future__ import annotations

import logging
import shutil
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from os.path import relpath
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.cli import DvcParserError, parse_args
from dvc.commands.plots import CmdPlotsDiff, CmdPlotsShow
from dvc.commands.repro import CmdRepro
from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from hydra.errors import HydraException

from refine.command.parameters import check
from refine.core.errors import UserError, one_line
from refine.core.machine import machine
from refine.core.params import ParamsFile
from refine.upkeep.plots import refuse_missing
from refine.upkeep.processes import root
from refine.upkeep.rwlock import REMOVED, mend

PARAMS = "params.yaml"
"""DVC's default parameters file, which -S changes unless it names another one."""


def look(arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Checks what a DVC command needs.

    Args:
        arguments: of the command.
        folder: the working folder.
        say: gets messages that do not keep DVC from running.

    Raises:
        UserError: the command would run stages, but a parameter or a setting of the machine is wrong, or a lock file
            is broken and in use.
    """
    given = _understood(arguments)
    project = root((folder / given.cd).resolve() if given else folder)
    if project is None:
        return
    runs = given is not None and issubclass(given.func, CmdRepro)  # includes `exp run`
    if runs:
        machine()
    try:
        for path in mend(project):
            say(f"{path} {REMOVED}")
        if given and given.func in (CmdPlotsShow, CmdPlotsDiff):
            refuse_missing(project)
    except UserError as error:
        if runs:
            raise
        say(one_line(str(error)))
    if given and runs and not getattr(given, "run_all", False):  # experiments are checked when they are queued
        check_with(project / PARAMS, getattr(given, "set_param", []))


def _understood(arguments: Sequence[str]) -> Namespace | None:
    """The arguments as DVC parses them; None if it refuses them or prints its help."""
    given: Namespace | None = None
    logging.disable()  # the parser logs errors, which DVC will print when it runs
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(DvcParserError, SystemExit):
        given = parse_args(list(arguments))
    logging.disable(logging.NOTSET)
    return given


def check_with(path: Path, set_param: Sequence[str]) -> None:
    """Checks a parameters file with the changes that DVC would make to it.

    Args:
        path: of the file, which is not changed.
        set_param: changes in Hydra's grammar; if they describe several experiments, all are checked.

    Raises:
        UserError: the changed file has an error.
    """
    shown = Path(relpath(path))
    overrides = to_path_overrides(set_param).get(PARAMS)
    if not overrides:
        check(shown)
        return
    ParamsFile(shown)
    with suppress(DvcException, HydraException):  # reported by DVC when it runs
        for changes in get_hydra_sweeps({PARAMS: overrides}):
            _check_changed(shown, changes[PARAMS])


def _check_changed(path: Path, overrides: list[str]) -> None:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMS
        shutil.copy(path, copy)
        try:
            apply_overrides(copy, overrides)
        except DvcException:  # a name that the file does not contain; if it is misspelled, the check suggests one
            apply_overrides(copy, [change if change.startswith(("+", "~")) else f"++{change}" for change in overrides])
        try:
            check(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(path))) from None
