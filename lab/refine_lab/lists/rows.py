"""Lists of runs: the content of a file of `experiments`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from refine.core.errors import UserError
from refine.core.params import Number, Section, sentence
from refine.core.yaml12 import load
from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab.lists.machine import check_machine
from refine_lab.runs.parameters import put, split_of

Points = Annotated[Number, Field(ge=0, le=100)]


class Aims(Section):
    """What a run is meant to stay within, in points, and in minutes of one core.

    Attributes:
        ba_drop: how much benign accuracy the defense may cost.
        above_floor: how far the attack success rate may be above its floor.
        robust_loss: how many more of the triggered images may be misread than by a clean classifier.
        core_minutes: that the training of the defense may take, times the cores that it takes.
    """

    ba_drop: Points
    above_floor: Points
    robust_loss: Points = 5.0
    core_minutes: Annotated[Number, Field(gt=0, le=100_000)]


class Row(Section):
    """One run.

    Attributes:
        attack: its name.
        defense: its name.
        variant: one word for what is special about it.
        seed: of all sections that have one.
        changes: parameters that depart from the preset, by their dotted names.
        machine: settings of the machine that the run is computed with, `REFINE_*` or those of `INSTRUCTIONS`. All
            stages of such a run are computed, none comes from the cache, where equal parameters count as equal runs.
        retuned: whether the retuning attack is tried on it, which may take as long as the defense.
        why: the reason, for the reader of the table.
        aims: what it is meant to reach, which a table of headlines holds it against.
    """

    attack: str
    defense: str = STAGE_OF_ITS_OWN
    variant: str = "default"
    seed: int = 1
    changes: dict[str, Any] = Field(default={})
    machine: dict[str, int | str] = Field(default={})
    retuned: bool = True
    why: str = ""
    aims: Aims | None = None

    @field_validator("machine")
    @classmethod
    def _known(cls, given: dict[str, int | str]) -> dict[str, int | str]:
        check_machine(given)
        return given

    def params(self, preset: dict[str, Any]) -> dict[str, Any]:
        """The parameters of the run, a whole file, with the split that its defense names.

        Raises:
            UserError: a change goes below what is no mapping.
        """
        params = copy.deepcopy(preset)
        params["poison_dataset"]["attack"]["name"] = self.attack
        params["defenses"] = [] if self.defense == STAGE_OF_ITS_OWN else [self.defense]
        for section in params.values():
            if isinstance(section, dict) and "seed" in section:
                section["seed"] = self.seed
        for name, value in self.changes.items():
            put(params, name, value)
        split = split_of(params, self.defense)
        params["splits"] = [split] if split else []
        return params


class Rows(Section):
    """A list of runs.

    Attributes:
        preset: that they depart from, a file of `presets`.
        rows: the runs, in the order in which they are computed and shown, or the name of another list beside this one,
            whose rows these are as well. Where a list has `each`, every row is run with each of its entries, which say
            what the row does not, and have changes besides those of the row.
    """

    preset: str
    rows: Annotated[list[Row], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _multiplied(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "each" not in content:
            return content
        rows, each = content.get("rows"), content["each"]
        if not all(isinstance(part, list) and all(isinstance(entry, dict) for entry in part) for part in (rows, each)):
            raise ValueError("each and rows are lists of mappings, such as `- defense: clp`")
        both = [_merged(row, entry) for row in rows for entry in each]  # type: ignore[union-attr]
        return {**{name: value for name, value in content.items() if name != "each"}, "rows": both}


def read_rows(path: Path) -> Rows:
    """Reads a list of runs.

    Raises:
        UserError: it is missing, cannot be read or is not a list of runs.
    """
    if not path.is_file():
        raise UserError(f"{path} is no list of runs; `ls experiments` shows those there are")
    content = load(path)
    if isinstance(content, dict) and isinstance(content.get("rows"), str):
        content = {**content, "rows": _rows_of(path.parent / content["rows"], path)}
    try:
        return Rows.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} is no list of runs: {sentence('list', error)}") from None


def _rows_of(path: Path, of: Path) -> Any:
    """What another list has as its rows, as it is written there."""
    content = load(path) if path.is_file() and path.parent.resolve() == of.parent.resolve() else None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list) or "each" in content:
        raise UserError(
            f"{of} takes its rows from {path.name}, which is no list of runs beside it, or has `each`; name another"
        )
    return content["rows"]


def _merged(row: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """A row of a list with an entry of its `each`."""
    twice = sorted(row.keys() & entry.keys() - {"changes"})
    if twice:
        raise ValueError(f"{twice[0]} is set by a row and by each; keep one")
    changes = {**(row.get("changes") or {}), **(entry.get("changes") or {})}
    return {**row, **entry, "changes": changes}
