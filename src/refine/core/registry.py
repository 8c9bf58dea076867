"""Finding the one file that a parameter or a model card names: an attack, a data source, an architecture.

The rooms that can be chosen from hold nothing but choices, so their file names are the list of them.
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


def names(room: str) -> list[str]:
    """Names that can be chosen in a room, a package such as `refine.attacks`."""
    spec = util.find_spec(room)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"no package {room}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


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
    return import_module(f"{room}.{name}")
