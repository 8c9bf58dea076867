"""Sections on attacks and defenses, made of their own files: idea and formula, a picture, settings and defaults."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pandas as pd
from pydantic import BaseModel

from refine.core.registry import ATTACKS, DEFENSES, component, names
from refine_lab.lists.plan import plan
from refine_lab.lists.rows import Rows
from refine_lab.pages.docstrings import remarks, settings_of
from refine_lab.pages.tables import markdown
from refine_lab.runs.recorded import HOME

_PREVIEW, _GALLERY = "preview.png", "gallery.png"


def attacks(listed: Rows, project: Path, page: Path) -> str:
    """One section for each attack, those of a list first and in its order.

    Args:
        listed: runs; the first of each attack gives the picture.
        project: root of the project.
        page: that the sections are for, so that pictures are found from there.
    """
    pictures: dict[str, Path] = {}
    for row, name, _ in plan(listed, project):
        pictures.setdefault(row.attack, project / HOME / str(name) / _PREVIEW)
    caption = "clean, triggered and the difference"
    return _sections(ATTACKS, pictures, caption, page)


def defenses(listed: Rows, project: Path, page: Path) -> str:
    """One section for each defense; arguments as above."""
    pictures: dict[str, Path] = {}
    for row, name, _ in plan(listed, project):
        pictures.setdefault(row.defense, project / HOME / str(name) / _GALLERY)
    caption = "clean and triggered images, transformed, and what is answered"
    return _sections(DEFENSES, pictures, caption, page)


def section(room: str, name: str, caption: str, picture: Path | None, page: Path) -> str:
    """All that the page says of a component.

    Args:
        room: that it is in.
        name: of it.
        caption: of the picture.
        picture: of a recorded run; left out where there is none.
        page: from which the picture is found.
    """
    module = component(room, name, f"a section of {page}")
    parts = [f"### `{name}`", inspect.getdoc(module) or ""]
    if picture is not None and picture.is_file():
        way = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.append(f"![{caption}: {name}]({way})")
    params = getattr(module, "Params", None)  # a defense with a stage of its own has its settings in that section
    if params is not None:
        parts += [remarks(params), _settings(params())]
    return "\n\n".join(part for part in parts if part)


def _settings(defaults: BaseModel) -> str:
    lines = settings_of(defaults)
    return markdown(pd.DataFrame(lines, columns=["setting", "default", "meaning"])) if lines else ""


def _sections(room: str, pictures: dict[str, Path], caption: str, page: Path) -> str:
    known = names(room)
    order = [name for name in pictures if name in known] + [name for name in known if name not in pictures]
    return "\n\n".join(section(room, name, caption, pictures.get(name), page) for name in order)
