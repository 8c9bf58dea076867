"""Finding the one component that a parameter or a model card names: an attack, a source, an architecture, a defense.

The rooms that components are chosen from hold nothing else, so the names of their files and folders are the list of
them.
"""

from __future__ import annotations

from importlib import import_module, util
from pathlib import Path
from types import ModuleType

from refine.core.errors import UserError
from refine.core.params import unknown

ARCHITECTURES = "refine.architectures"
ATTACKS = "refine.attacks"
DEFENSES = "refine.defenses"
SOURCES = "refine.sources"

_IN_FOLDER = "defense"
"""The file that is imported of a choice that is a folder, as every defense is."""


def names(room: str) -> list[str]:
    """Names that can be chosen in a room, a package such as `refine.attacks`."""
    spec = util.find_spec(room)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"no package {room}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = {path.stem for path in folder.glob("[a-z]*.py")}
    return sorted(files | {path.parent.name for path in folder.glob(f"[a-z]*/{_IN_FOLDER}.py")})


def component(room: str, name: str, parameter: str) -> ModuleType:
    """Imports the file of that name, and no other of the room.

    Args:
        room: the package to choose from.
        name: from a parameters file or a model card; trusted for nothing but being compared.
        parameter: where the name was read, for the message.

    Raises:
        UserError: there is no such file; the sentence lists those that there are.
    """
    known = names(room)
    if name not in known:
        raise UserError(f"{parameter}: {unknown(name, known)} (known are {', '.join(known)})")
    path = f"{room}.{name}"
    spec = util.find_spec(path)
    is_folder = spec is not None and spec.submodule_search_locations
    return import_module(f"{path}.{_IN_FOLDER}" if is_folder else path)
