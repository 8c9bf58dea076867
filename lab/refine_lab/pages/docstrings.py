"""Settings of a component, such as an attack, as its `Params` describe them.

A settings class says what concerns all settings in the first part of its docstring, and what each one means under
`Attributes:`.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pydantic import BaseModel

from refine.training.recipe import Recipe

_ATTRIBUTE = re.compile(r"^ {0,8}(\w+): (.*(?:\n(?! {0,8}\w+: | {0,4}\S).+)*)", re.MULTILINE)


def remarks(params: type[BaseModel]) -> str:
    """The text of a model's own docstring before it goes through the fields; empty where there is none."""
    text = inspect.cleandoc(vars(params).get("__doc__") or "")
    return text.partition("Attributes:\n")[0].strip()


def settings_of(defaults: BaseModel, above: str = "") -> list[tuple[str, str, str]]:
    """Name, default and meaning of each setting.

    Args:
        defaults: the settings where the user gives none; those within are listed one by one, save a recipe's.
        above: names of the settings that these are within.
    """
    meanings = described(type(defaults))
    lines = []
    for name in type(defaults).model_fields:
        value = getattr(defaults, name)
        if isinstance(value, BaseModel) and not isinstance(value, Recipe):
            lines += settings_of(value, f"{above}{name}.")
        else:
            lines.append((f"`{above}{name}`", _shown(value), meanings.get(name, "")))
    return lines


def described(params: type[BaseModel]) -> dict[str, str]:
    """The meaning of each field, from the docstrings of a model and of its bases; the nearest one counts."""
    meanings: dict[str, str] = {}
    for model in reversed(params.__mro__):
        text = vars(model).get("__doc__") or ""
        _, found, attributes = text.partition("Attributes:\n")
        if found and issubclass(model, BaseModel):
            meanings |= {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}
    return meanings


def _shown(value: Any) -> str:
    """A default as it is typed into `params.yaml`; a recipe in a few words."""
    if isinstance(value, Recipe):
        return f"{value.epochs} epochs, batch {value.batch_size}, {value.optimizer.name} at {value.optimizer.lr:g}"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
