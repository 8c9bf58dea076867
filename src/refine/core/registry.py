"""Finding the module that a parameter or a card names: an attack, a data source, an architecture, a defense and others.

Such a package contains nothing else, so that the list of its files and folders is the list of available names.
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
SPLITS = "refine.splits"
TRANSFORMS = "refine.defenses.refine.model.transforms"

TRAINING = "training"
"""The module of a defense's folder that trains it."""
TRANSFORM = "transform"
"""The module of a transform's folder that builds it."""

_IN_FOLDER = {ARCHITECTURES: "params", DEFENSES: "defense", SPLITS: "split", TRANSFORMS: "params"}
"""The module of a component that is a folder, as every architecture, defense, split and transform is."""


def names(room: str) -> list[str]:
    """Names of all components in a package such as `refine.attacks`, sorted."""
    spec = util.find_spec(room)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"no package {room}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = {path.stem for path in folder.glob("[a-z]*.py")}
    inner = f"[a-z]*/{_IN_FOLDER[room]}.py" if room in _IN_FOLDER else None
    return sorted(files | {path.parent.name for path in folder.glob(inner)} if inner else files)


def component(room: str, name: str, parameter: str) -> ModuleType:
    """Imports the module of one component.

    Args:
        room: the package, such as `refine.attacks`.
        name: from a parameters file or a model card; untrusted, so it is only compared with known names.
        parameter: where the name was read, for the error message.

    Raises:
        UserError: there is no such component; the message lists the known ones.
    """
    known = names(room)
    if name not in known:
        raise UserError(f"{parameter}: {unknown(name, known)} (known are {', '.join(known)})")
    path = f"{room}.{name}"
    spec = util.find_spec(path)
    is_folder = spec is not None and spec.submodule_search_locations
    return import_module(f"{path}.{_IN_FOLDER[room]}" if is_folder else path)


def part(room: str, name: str, module: str) -> ModuleType | None:
    """Imports a further module of a component that is a folder; None where it has no such module.

    Args:
        room: the package.
        name: of a component that is there.
        module: file name without its ending.
    """
    path = f"{room}.{name}.{module}"
    return import_module(path) if util.find_spec(path) else None
