"""The lab imports the library, and nothing of the product imports the lab."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from support import PROJECT, environment

LAB = PROJECT / "lab/refine_lab"
PRODUCT = sorted(path for room in ("src", "stages", "benchmarks") for path in (PROJECT / room).rglob("*.py"))


def _imported(path: Path) -> set[str]:
    """Full names of modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_nothing_of_the_product_imports_the_lab() -> None:
    assert PRODUCT
    using = [path for path in PRODUCT if any(name.partition(".")[0] == LAB.name for name in _imported(path))]
    assert using == []


def test_the_rooms_of_the_lab_import_one_way() -> None:
    order = [
        "systems",
        "projects",
        "runs",
        "calibration",
        "stress",
        "adaptive",
        "recording",
        "lists",
        "cluster",
        "pages",
        "plot_page",
    ]
    order += ["difference", "commands"]
    assert {path.stem for path in LAB.iterdir() if not path.name.startswith("_")} == set(order)
    for path in LAB.rglob("*.py"):
        room = path.relative_to(LAB).parts[0].removesuffix(".py")
        for name in _imported(path):
            parts = name.split(".")
            if parts[0] == LAB.name and len(parts) > 1 and room in order:
                assert order.index(parts[1]) <= order.index(room), f"{path} imports {name}"


@pytest.mark.parametrize("heavy", ["torch", "dvc", "pandas"])
def test_the_commands_load_nothing_heavy_before_one_is_called(heavy: str) -> None:
    code = f"import sys, refine_lab.commands; sys.exit({heavy!r} in sys.modules)"
    path = f"{PROJECT / 'src'}:{PROJECT / 'lab'}"
    assert subprocess.run([sys.executable, "-c", code], env=environment(PYTHONPATH=path), check=False).returncode == 0
