"""The house as its source draws it: rooms, which way they import, and files short enough to hold in the head."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

from support import PROJECT

SOURCE = PROJECT / "src/refine"
LONGEST = 260
_CHOICES = ("architectures", "attacks", "defenses", "sources", "splits")
_WITH_ROOMS = ("defending", "defenses", "poisoning", "proof", "shards", "splits")
"""Folders that hold rooms of their own."""


def _files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.stat().st_size)


def _room(module: str) -> str:
    """`refine.shards.reading.reader` to `shards.reading`."""
    parts = module.split(".")[1:]
    depth = 2 if parts[0] in _WITH_ROOMS and len(parts) > 2 else 1
    return ".".join(parts[:depth])


def _imported(path: Path) -> set[str]:
    """Names of the project's modules that a file imports, other than for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
            for name in node.names:
                inner = PROJECT / "src" / node.module.replace(".", "/") / f"{name.name}.py"
                found.add(f"{node.module}.{name.name}" if inner.is_file() else node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.split(".")[0] in ("refine", "stages", "tests", "benchmarks", "refine_lab")}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT / "src").with_suffix("").parts)


def test_rooms_import_one_way() -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for path in _files():
        own = _room(_module(path))
        rooms[own] |= {_room(name) for name in _imported(path) if name.startswith("refine.")} - {own}
    TopologicalSorter(rooms).prepare()  # a circle raises CycleError, which names it
    assert rooms["core"] == set()


def test_the_library_imports_nothing_that_is_built_on_it() -> None:
    assert {name for path in _files() for name in _imported(path) if not name.startswith("refine.")} == set()


def test_only_the_registry_reaches_what_is_chosen_by_name() -> None:
    """Else a stage would depend on a component that its parameters do not name."""
    found = [
        (_module(path), name)
        for path in _files()
        for name in _imported(path)
        if (room := _room(name).split(".")[0]) in _CHOICES and _room(_module(path)).split(".")[0] != room
    ]
    allowed = ("refine.command", "refine.defenses.refine")
    assert [pair for pair in found if not pair[0].startswith(allowed) and not pair[1].startswith(allowed)] == []


def test_no_file_is_too_long_to_hold_in_the_head() -> None:
    lengths = {_module(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _files()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_package_files_are_empty_but_for_the_names_that_the_package_offers() -> None:
    filled = [path for path in SOURCE.rglob("__init__.py") if path.stat().st_size]
    assert filled == [SOURCE / "__init__.py"]
    assert _imported(filled[0]) == set(), "every stage would load it"
