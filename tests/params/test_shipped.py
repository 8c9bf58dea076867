"""Every parameters file that is shipped is right, and means the same to us and to DVC."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from refine.command.parameters import check
from refine.core.params import SECTIONS, ParamsFile
from support import PROJECT

SHIPPED = [PROJECT / "params.yaml", *sorted((PROJECT / "presets").glob("**/*.yaml"))]


@pytest.fixture(params=SHIPPED, ids=lambda path: str(path.relative_to(PROJECT)))
def shipped(request: pytest.FixtureRequest) -> Path:
    """Each shipped file in turn."""
    path: Path = request.param
    return path


def test_it_passes_the_check(shipped: Path) -> None:
    check(shipped)


def test_dvc_reads_the_same_content(shipped: Path) -> None:
    content = YAML(typ="safe", pure=True).load(shipped.read_text(encoding="utf-8"))
    assert repr(ParamsFile(shipped).content) == repr(content)


def test_it_has_every_section(shipped: Path) -> None:
    assert set(ParamsFile(shipped).content) == set(SECTIONS)
