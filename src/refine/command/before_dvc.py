"""What is looked at before DVC runs, where DVC itself would say little or nothing that helps."""

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
"""The file that DVC takes for parameters, and changes by -S, unless another one is named."""


def look(arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Looks at what a command of DVC will need.

    Args:
        arguments: of the command.
        folder: in which it is typed.
        say: takes sentences that need not keep DVC from running.

    Raises:
        UserError: the command would run stages, and a parameter or a setting of the machine is wrong, or a lock file
            broken and in use.
    """
    given = _understood(arguments)
    project = root((folder / given.cd).resolve() if given else folder)
    if project is None:
        return
    runs = given is not None and issubclass(given.func, CmdRepro)  # `exp run` is one, too
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
    if given and runs and not getattr(given, "run_all", False):  # queued experiments were looked at when they came
        check_with(project / PARAMS, getattr(given, "set_param", []))


def _understood(arguments: Sequence[str]) -> Namespace | None:
    """The arguments as DVC takes them; None where it will refuse them, or only tell its use."""
    given: Namespace | None = None
    logging.disable()  # DVC logs what it refuses, and will do so again
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(DvcParserError, SystemExit):
        given = parse_args(list(arguments))
    logging.disable(logging.NOTSET)
    return given


def check_with(path: Path, set_param: Sequence[str]) -> None:
    """Checks a parameters file as DVC would change it before it runs.

    Args:
        path: of the file, which stays as it is.
        set_param: changes in Hydra's grammar; several experiments may come of them, which are all checked.

    Raises:
        UserError: it would be wrong.
    """
    shown = Path(relpath(path))
    overrides = to_path_overrides(set_param).get(PARAMS)
    if not overrides:
        check(shown)
        return
    ParamsFile(shown)
    with suppress(DvcException, HydraException):  # which DVC will tell of
        for changes in get_hydra_sweeps({PARAMS: overrides}):
            _check_changed(shown, changes[PARAMS])


def _check_changed(path: Path, overrides: list[str]) -> None:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMS
        shutil.copy(path, copy)
        try:
            apply_overrides(copy, overrides)
        except DvcException:  # a name that the file does not hold; where it should not, the check says what is meant
            apply_overrides(copy, [change if change.startswith(("+", "~")) else f"++{change}" for change in overrides])
        try:
            check(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(path))) from None
