"""Every command that is a module tells its use on `--help` and does nothing else, and pages name only what there is.

Those of `refine` are tested in `tests/command`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from refine.command.main import GROUP, refine
from support import PROJECT

END = '\n\nif __name__ == "__main__":\n    command(main)\n'
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts): path.read_text(encoding="utf-8")
    for root, room in ((PROJECT / "src", "refine"), (PROJECT, "benchmarks"))
    for path in (root / room).rglob("*.py")
}
MODULES = sorted(module for module, source in SOURCES.items() if re.search("^if __name__", source, re.MULTILINE))


def _asked(module: str, argument: str) -> int:
    """The exit status of a command that is given one argument."""
    main: Callable[[list[str]], None] = import_module(module).main
    with pytest.raises(SystemExit) as ended:
        main([argument])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _told() -> str:
    """What people are told to type."""
    pages = [PROJECT / "README.md", PROJECT / "run", *(PROJECT / "docs").glob("*.md"), *PROJECT.glob("*/*.yaml")]
    return "".join(page.read_text(encoding="utf-8") for page in pages)


def test_every_module_that_is_to_be_typed_is_a_command() -> None:
    assert set(re.findall(r"python -m ((?:refine|benchmarks)\.\w+(?:\.\w+)*)", _told())) <= set(MODULES)


def test_every_command_of_refine_that_is_to_be_typed_is_one() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {*refine.commands, *project.get("entry-points", {}).get(GROUP, {})}
    typed = set(re.findall(r"(?:^ *|[`;&(] ?|\./run )refine ([a-z][a-z-]*)", _told(), re.MULTILINE))
    assert "dvc" in typed
    assert typed <= known


@pytest.mark.parametrize("module", MODULES)
def test_help_tells_the_use_and_does_nothing(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _asked(module, "--help") == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"usage: python -m {module} [-h]")
    assert told.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_option_is_refused(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _asked(module, "--no-such-option") == 2
    assert f"python -m {module}: error: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", MODULES)
def test_as_a_process_it_tells_what_a_person_can_mend_in_one_sentence(module: str) -> None:
    assert SOURCES[module].endswith(END)
