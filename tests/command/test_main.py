"""The command `refine`: its help, its errors, and the commands that others offer."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from commands import refine
from refine.command import main as group
from support import PROJECT, environment, run

OWN = sorted(group.refine.commands)
OFFERED = """
import click
from refine.core.errors import UserError

@click.command()
@click.argument("how")
def greet(how):
    \"\"\"Greet somebody.\"\"\"
    if how == "badly":
        raise UserError("nobody\\nis there; come back later")
    if how == "slowly":
        raise KeyboardInterrupt
    if how == "wrongly":
        raise ZeroDivisionError
    click.echo("hello")
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.fixture
def _offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers the command `greet`."""
    package = tmp_path / "installed"
    (package / "other-1.dist-info").mkdir(parents=True)
    (package / "other-1.dist-info/METADATA").write_text("Name: other\nVersion: 1\n", encoding="utf-8")
    points = f"[{group.GROUP}]\ngreet = greeting:greet\n"
    (package / "other-1.dist-info/entry_points.txt").write_text(points, encoding="utf-8")
    (package / "greeting.py").write_text(OFFERED, encoding="utf-8")
    monkeypatch.syspath_prepend(package)
    monkeypatch.delitem(sys.modules, "greeting", raising=False)


def test_help_names_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "--help")
    assert (ended.status, ended.err) == (0, "")
    rows = ended.out.partition("Commands:\n")[2].splitlines()
    assert {row.split()[0] for row in rows} >= set(OWN)
    assert all(len(row.split()) > 3 for row in rows)


@pytest.mark.parametrize("command", OWN)
def test_each_tells_its_use_and_does_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, command, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: refine {command} [OPTIONS]")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [command for command in OWN if command != "dvc"])
def test_an_option_that_is_not_known_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, command, "--no-such-option")
    assert ended.status == 2
    assert "Error: No such option" in ended.err
    assert list(Path().iterdir()) == []


def test_a_command_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "no-such-command")
    assert ended.status == 2
    assert "No such command 'no-such-command'" in ended.err


@pytest.mark.usefixtures("_offered")
def test_a_command_of_another_package_is_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\n  greet " in refine(capsys, "--help").out
    assert refine(capsys, "greet", "well").out == "hello\n"
    assert refine(capsys, "greet").status == 2


@pytest.mark.usefixtures("_offered")
def test_what_a_person_can_mend_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "greet", "badly")
    assert (ended.status, ended.err) == (1, "error: nobody is there; come back later\n")


@pytest.mark.usefixtures("_offered")
def test_an_interrupt_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "greet", "slowly")
    assert (ended.status, ended.err) == (130, "error: interrupted; type the same command again to go on\n")


@pytest.mark.usefixtures("_offered")
def test_a_fault_of_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        group.main(["greet", "wrongly"])


def test_the_console_script_is_this_command() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert resolve_name(declared["refine"]) is group.main


def test_help_waits_for_nothing_that_takes_long_to_import() -> None:
    code = (
        "import sys\n"
        "from refine.command.main import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print(sorted({'torch', 'pandas', 'dvc', 'matplotlib'} & set(sys.modules)))\n"
    )
    ended = run(Path(), sys.executable, "-c", code, env=environment(PYTHONPATH=str(PROJECT / "src")))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
