"""Checks a whole parameters file, so that an error in the last section is found before the first stage runs."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from refine.core.errors import UserError
from refine.core.params import SECTIONS, ParamsFile, unknown
from refine.core.registry import ATTACKS, SOURCES, component, names
from refine.poisoning.attack import NONE

CHOICES = {
    "download.source": SOURCES,
    "poison_dataset.attack.name": ATTACKS,
}
"""Parameters that name a component, and the package that it is chosen from."""


def check(path: Path) -> None:
    """Checks all sections, including the settings of components that are not chosen.

    Raises:
        UserError: names the first error.
    """
    file = ParamsFile(path)
    places = {section: resolve_name(place) for section, place in SECTIONS.items()}
    rooms = {section: place.__name__ for section, place in places.items() if isinstance(place, ModuleType)}
    read = {section: _read(file, section, place) for section, place in places.items() if section not in rooms}
    _refuse_contradictions(path, read)
    chosen: dict[str, set[str]] = {SOURCES: {read["other_images"]} if read["other_images"] else set()}
    for parameter, room in CHOICES.items():
        section, *rest = parameter.split(".")
        name: str = reduce(getattr, rest, read[section])
        if name not in names(room):
            raise UserError(f"{path}: {parameter}: {unknown(name, names(room))} (known are {', '.join(names(room))})")
        chosen.setdefault(room, set()).add(name)
    for section, room in rooms.items():
        for name in sorted({*file.names_in(section), *chosen[room]}):
            file.component(section, name, component(room, name, f"{path}: {section}").Params)


def _refuse_contradictions(path: Path, read: dict[str, Any]) -> None:
    """Stops where two sections, each of them right, do not go together."""
    other = read["other_images"]
    if other is not None and other == read["download"].source:
        raise UserError(
            f"{path}: other_images: {other} is the data set itself; write `other_images: []`, or "
            "poison_dataset.held_out for images that the attacker does not have"
        )
    if read["poison_dataset"].attack.name == NONE and read["poison_dataset"].contaminated:
        raise UserError(
            f"{path}: poison_dataset.contaminated: the attack {NONE} has no trigger for images to have; set it to 0"
        )


def _read(file: ParamsFile, section: str, place: Any) -> Any:
    """Reads a section with its model or with its function."""
    return file.section(section, place) if isinstance(place, type) else place(file)
