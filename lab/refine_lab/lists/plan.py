"""What a list of runs stands for, checked as a whole before the first of its runs is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from refine.command.parameters import check
from refine.core.documents import read_document
from refine.core.errors import UserError
from refine_lab.lists.rows import Row, Rows
from refine_lab.projects import preset_file
from refine_lab.runs.name import Name, name_of
from refine_lab.runs.parameters import changes, effective, read_params
from refine_lab.runs.record import Record
from refine_lab.runs.recorded import HOME, RECORD

Planned = tuple[Row, Name, dict[str, Any]]
"""A row, and name and parameters of its run."""


def plan(rows: Rows, project: Path) -> list[Planned]:
    """The runs of a list, in order.

    Raises:
        UserError: the preset is missing, or a row cannot be applied to it.
    """
    preset = read_params(project / preset_file(rows.preset))
    runs = [(row, row.params(preset)) for row in rows.rows]
    return [(row, name_of(params, rows.preset, row.defense, row.variant), params) for row, params in runs]


def checked(rows: Rows, project: Path) -> list[tuple[Row, Name, str]]:
    """A row, and name and parameters file of its run, in order.

    Raises:
        UserError: the first thing that is wrong, a run that was recorded with other parameters included.
    """
    planned = plan(rows, project)
    names = [str(name) for _, name, _ in planned]
    for row, name, params in planned:
        if names.count(str(name)) > 1:
            raise UserError(f"two rows are called {name}; give one of them another variant")
        refuse_other(project / HOME / str(name), params, row)
    files = [(row, name, yaml.safe_dump(params, sort_keys=False)) for row, name, params in planned]
    with TemporaryDirectory() as folder:
        for row, _, text in files:
            path = Path(folder) / f"{row.attack}, variant {row.variant}"
            path.write_text(text, encoding="utf-8")
            check(path)
    return files


def refuse_other(folder: Path, params: dict[str, Any], row: Row) -> None:
    """A recorded run stands for these parameters; settings of what is not chosen may have changed.

    Args:
        folder: of the run, which need not be there.
        params: that are wanted.
        row: whose defense and settings of the machine are wanted.

    Raises:
        UserError: there is one, and it does not.
    """
    if not folder.is_dir():
        return
    remedy = "remove it by `git rm -r` if it is outdated, or give the row another variant"
    before, wanted = (effective(of, row.defense) for of in (read_params(folder / "params.yaml"), params))
    differing = [*changes(before, wanted)]
    machine: Mapping[str, int | str] = read_document(folder / RECORD, Record, remedy).machine
    if machine != row.machine:
        differing.append("machine")
    if differing:
        raise UserError(f"{folder} was recorded with other parameters ({', '.join(differing)}); {remedy}")
