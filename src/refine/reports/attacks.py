"""The page on attacks, made of what stands in their files: idea and formula, a picture, settings and defaults."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from refine.params.chosen import chosen
from refine.params.recipe import Recipe
from refine.reports import rows, run
from refine.reports.rows import Rows
from refine.reports.tables import markdown

ROOM = "refine.attacks"
_ATTRIBUTE = re.compile(r"^ {0,8}(\w+): (.*(?:\n(?! {0,8}\w+: | {0,4}\S).+)*)", re.MULTILINE)


def gallery(listed: Rows, project: Path, page: Path) -> str:
    """One section for each attack of a list.

    Args:
        listed: runs; the first of each attack gives the picture.
        project: root of the project.
        page: that the sections are for, so that pictures are found from there.
    """
    sections, seen = [], set()
    for row, name in zip(listed.rows, rows.names(listed, project), strict=True):
        if row.attack not in seen:
            seen.add(row.attack)
            sections.append(_section(row.attack, project / run.HOME / str(name) / "preview.png", page))
    return "\n\n".join(sections)


def _section(attack: str, picture: Path, page: Path) -> str:
    module = chosen(ROOM, attack, "attack")
    parts = [f"### `{attack}`", _prose(inspect.getdoc(module) or "")]
    if picture.is_file():
        way = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.append(f"![clean, triggered and the difference: {attack}]({way})")
    settings = _settings(module.Params)
    if settings:
        parts.append(markdown(pd.DataFrame(settings, columns=["setting", "default", "meaning"])))
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """A docstring as Markdown: its indented lines, the formulas, become blocks of code by themselves."""
    return re.sub(r"(?m)^spec \S+; ", "", re.sub(r"[;,]? ?\(?spec [\d., and]+\)?(?=[).])", "", text))


def _settings(params: type[BaseModel], above: str = "") -> list[tuple[str, str, str]]:
    told = described(params)
    lines = []
    for name, field in params.model_fields.items():
        default: Any = None if field.default is PydanticUndefined else field.default
        nested = isinstance(default, BaseModel) and not isinstance(default, Recipe)
        if nested and len(type(default).model_fields) > 1:
            lines += _settings(type(default), f"{above}{name}.")
        else:
            lines.append((f"`{above}{name}`", f"`{_shown(default)}`", told.get(name, "")))
    return lines


def described(params: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and of those that it is derived from say of each field; the nearest one counts."""
    told: dict[str, str] = {}
    for model in reversed(params.__mro__):
        text = vars(model).get("__doc__") or ""
        _, found, attributes = text.partition("Attributes:\n")
        if found and issubclass(model, BaseModel):
            told |= {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}
    return told


def _shown(value: Any) -> str:
    if isinstance(value, Recipe):
        return f"{value.epochs} epochs, batch {value.batch_size}, {value.optimiser.name} at {value.optimiser.lr:g}"
    return "null" if value is None else str(value)
