"""The page on attacks, made of what stands in their files: idea and formula, a picture, settings and defaults.

A settings class tells variants and other remarks on all settings in the first part of its docstring, and what each
setting means under `Attributes:`; the page shows both.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from refine.core.registry import ATTACKS, component
from refine.reports import lists, run
from refine.reports.lists import Rows
from refine.reports.tables import markdown
from refine.training.recipe import Recipe

_ATTRIBUTE = re.compile(r"^ {0,8}(\w+): (.*(?:\n(?! {0,8}\w+: | {0,4}\S).+)*)", re.MULTILINE)


def gallery(listed: Rows, project: Path, page: Path) -> str:
    """One section for each attack of a list.

    Args:
        listed: runs; the first of each attack gives the picture.
        project: root of the project.
        page: that the sections are for, so that pictures are found from there.
    """
    sections, seen = [], set()
    for row, name in zip(listed.rows, lists.names(listed, project), strict=True):
        if row.attack not in seen:
            seen.add(row.attack)
            sections.append(section(row.attack, project / run.HOME / str(name) / "preview.png", page))
    return "\n\n".join(sections)


def section(attack: str, picture: Path, page: Path) -> str:
    """All that the page says of an attack.

    Args:
        attack: name.
        picture: preview of a recorded run; left out where there is none.
        page: from which the picture is found.
    """
    module = component(ATTACKS, attack, "attack")
    parts = [f"### `{attack}`", inspect.getdoc(module) or ""]
    if picture.is_file():
        way = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.append(f"![clean, triggered and the difference: {attack}]({way})")
    parts.append(remarks(module.Params))
    settings = settings_of(module.Params())
    if settings:
        parts.append(markdown(pd.DataFrame(settings, columns=["setting", "default", "meaning"])))
    return "\n\n".join(part for part in parts if part)


def remarks(params: type[BaseModel]) -> str:
    """What a model's own docstring says before it goes through the fields; empty where it says nothing."""
    text = inspect.cleandoc(vars(params).get("__doc__") or "")
    return text.partition("Attributes:\n")[0].strip()


def settings_of(defaults: BaseModel, above: str = "") -> list[tuple[str, str, str]]:
    """Name, default and meaning of each setting.

    Args:
        defaults: the settings where the user gives none; those within are listed one by one, save a recipe's.
        above: names of the settings that these are within.
    """
    told = described(type(defaults))
    lines = []
    for name in type(defaults).model_fields:
        value = getattr(defaults, name)
        if isinstance(value, BaseModel) and not isinstance(value, Recipe):
            lines += settings_of(value, f"{above}{name}.")
        else:
            lines.append((f"`{above}{name}`", _shown(value), told.get(name, "")))
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
    """A default as it is typed into `params.yaml`; a recipe in a few words."""
    if isinstance(value, Recipe):
        return f"{value.epochs} epochs, batch {value.batch_size}, {value.optimizer.name} at {value.optimizer.lr:g}"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
