"""Every command tells its use on `--help` and does nothing else, and refuses what it does not know."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from support import PROJECT

END = '\n\nif __name__ == "__main__":\n    command(main)\n'
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts): path.read_text(encoding="utf-8")
    for root, room in ((PROJECT / "src", "refine"), (PROJECT, "benchmarks"))
    for path in (root / room).rglob("*.py")
}
COMMANDS = sorted(module for module, source in SOURCES.items() if re.search("^if __name__", source, re.MULTILINE))


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


def test_every_command_that_the_pages_name_is_one() -> None:
    pages = [PROJECT / "README.md", PROJECT / "run", *(PROJECT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"python -m ((?:refine|benchmarks)\.\w+(?:\.\w+)*)", text))
    assert "refine.params.check" in named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_tells_the_use_and_does_nothing(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _asked(module, "--help") == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"usage: python -m {module} [-h]")
    assert told.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", COMMANDS)
def test_an_unknown_option_is_refused(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _asked(module, "--no-such-option") == 2
    assert f"python -m {module}: error: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", COMMANDS)
def test_as_a_process_it_tells_what_a_person_can_mend_in_one_sentence(module: str) -> None:
    assert SOURCES[module].endswith(END)
