"""Lists of runs: what a file of `experiments` says, checked as a whole before the first of its runs is computed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator

from refine.command.parameters import check
from refine.core import machine
from refine.core.errors import UserError
from refine.core.files import read_json
from refine.core.params import Section, sentence, unknown
from refine.core.yaml12 import load, shown
from refine.reports import run
from refine.reports.record import preset_file
from refine.reports.run import HOME, Name

INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": ["default", "avx2", "avx512"],
    "ONEDNN_MAX_CPU_ISA": [
        *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"),
        *("AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16"),
        *("AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16"),
    ],
}
"""The newest instructions that torch and oneDNN may use on x86, from the variables that they read; both take a value
that they do not know for none, so it is refused here."""


class Row(Section):
    """One run.

    Attributes:
        attack: its name.
        variant: one word for what is special about it.
        seed: of all three sections that have one.
        changes: parameters that depart from the preset, by their dotted names.
        machine: settings of the machine that the run is computed with, `REFINE_*` or those of `INSTRUCTIONS`. All
            stages of such a run are computed, none comes from the cache, where equal parameters count as equal runs.
        why: the reason, for the reader of the table.
    """

    attack: str
    variant: str = "default"
    seed: int = 1
    changes: dict[str, Any] = Field(default={})
    machine: dict[str, int | str] = Field(default={})
    why: str = ""

    @field_validator("machine")
    @classmethod
    def _understood(cls, given: dict[str, int | str]) -> dict[str, int | str]:
        known = {*machine.NAMES, *INSTRUCTIONS}
        for name, value in given.items():
            if name not in known:
                raise ValueError(unknown(name, known))
            if name in INSTRUCTIONS and value not in INSTRUCTIONS[name]:
                raise ValueError(f"{name}={value} is not understood; give one of {', '.join(INSTRUCTIONS[name])}")
        try:
            machine.machine({name: str(value) for name, value in given.items()})
        except UserError as error:
            raise ValueError(str(error)) from None
        return given


class Rows(Section):
    """Content of a list of runs.

    Attributes:
        preset: that they depart from, a file of `presets`.
        rows: the runs, in the order in which they are computed and shown.
    """

    preset: str
    rows: Annotated[list[Row], Field(min_length=1)]

    def params(self, row: Row, preset: dict[str, Any]) -> dict[str, Any]:
        """The parameters of a run.

        Raises:
            UserError: a change goes below what is no mapping.
        """
        params = copy.deepcopy(preset)
        params["poison_dataset"]["attack"]["name"] = row.attack
        for section in run.SEEDED:
            params[section]["seed"] = row.seed
        for name, value in row.changes.items():
            *parents, last = name.split(".")
            inner = params
            for parent in parents:
                inner = inner.setdefault(parent, {})
                if not isinstance(inner, dict):
                    raise UserError(
                        f"{name} cannot be changed, because {parent} is {shown(inner)}; give {parent} as a whole"
                    )
            inner[last] = value
        return params


def read_rows(path: Path) -> Rows:
    """Reads a list of runs.

    Raises:
        UserError: it is missing, cannot be read or is not a list of runs.
    """
    if not path.is_file():
        raise UserError(f"{path} is no list of runs; `ls experiments` shows those there are")
    try:
        return Rows.model_validate(load(path))
    except ValidationError as error:
        raise UserError(f"{path} is no list of runs: {sentence('list', error)}") from None


def names(rows: Rows, project: Path) -> list[Name]:
    """The names of the runs, in order."""
    return [name for name, _ in _planned(rows, project)]


def checked(rows: Rows, project: Path) -> list[tuple[Name, str]]:
    """Name and parameters file of each run, in order.

    Raises:
        UserError: the first thing that is wrong, a run that was recorded with other parameters included.
    """
    planned = _planned(rows, project)
    told = [str(name) for name, _ in planned]
    for row, (name, params) in zip(rows.rows, planned, strict=True):
        if told.count(str(name)) > 1:
            raise UserError(f"two rows are called {name}; give one of them another variant")
        refuse_other(project / HOME / str(name), params, row.machine)
    files = [(name, yaml.safe_dump(params, sort_keys=False)) for name, params in planned]
    with TemporaryDirectory() as folder:
        for row, (_, text) in zip(rows.rows, files, strict=True):
            path = Path(folder) / f"{row.attack}, variant {row.variant}"
            path.write_text(text, encoding="utf-8")
            check(path)
    return files


def refuse_other(folder: Path, params: dict[str, Any], settings: Mapping[str, int | str]) -> None:
    """A recorded run stands for these parameters; settings of what is not chosen may have changed.

    Args:
        folder: of the run, which need not be there.
        params: that are wanted.
        settings: of the machine, that are wanted.

    Raises:
        UserError: there is one, and it does not.
    """
    if not folder.is_dir():
        return
    remedy = "remove it by `git rm -r` if it is outdated, or give the row another variant"
    recorded, wanted = (run.effective(of) for of in (run.whole(folder / "params.yaml"), params))
    changed = [*run.changes(recorded, wanted)]
    if read_json(folder / "run.json", remedy).get("machine", {}) != settings:
        changed.append("machine")
    if changed:
        raise UserError(f"{folder} was recorded with other parameters ({', '.join(changed)}); {remedy}")


def _planned(rows: Rows, project: Path) -> list[tuple[Name, dict[str, Any]]]:
    """Name and parameters of each run, in order."""
    preset = run.whole(project / preset_file(rows.preset))
    changed = [(row, rows.params(row, preset)) for row in rows.rows]
    return [(run.name_of(params, rows.preset, row.variant), params) for row, params in changed]
