"""The lab's commands: each one explains its use, refuses what it does not know, and hands its arguments on."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from refine.core.errors import UserError
from refine_lab.cluster.connection import Cluster
from refine_lab.lists.rows import Rows
from support import PROJECT

POINTS: dict[str, str] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]["refine.commands"]


def _command(name: str) -> click.Command:
    module, _, attribute = POINTS[name].partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command


def _typed(name: str, *arguments: str) -> Result:
    return CliRunner().invoke(_command(name), arguments, catch_exceptions=False)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Puts a function that only notes its arguments, and returns what is wanted, in the place of another."""

    def replaced(place: str, gives: Any = None) -> list[Any]:
        noted: list[Any] = []
        monkeypatch.setattr(place, lambda *given: (noted.extend(given), gives)[1])
        return noted

    return replaced


def test_the_entry_points_are_the_commands() -> None:
    assert set(POINTS) == {
        "adapt",
        "calibrate",
        "compare",
        "difference",
        "fill",
        "page",
        "record",
        "run-list",
        "stress-all",
    }
    for name in POINTS:
        assert _command(name).name == name


@pytest.mark.parametrize("name", POINTS)
def test_help_explains_the_use_and_does_nothing(name: str, tmp_path: Path) -> None:
    result = _typed(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: {name} ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", POINTS)
def test_an_unknown_option_is_refused(name: str, tmp_path: Path) -> None:
    result = _typed(name, "--no-such-option")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_record_prints_the_folder_of_each_defense(called: Callable[..., list[Any]]) -> None:
    noted = called("refine_lab.recording.record.record_all", [Path("metrics/runs/a"), Path("metrics/runs/b")])
    result = _typed("record", "quick", "--variant", "wider")
    assert noted == [Path(), Path("metrics/runs"), "quick", "wider"]
    assert result.stdout == "metrics/runs/a\nmetrics/runs/b\n"


def test_run_list_takes_a_file_and_attacks(called: Callable[..., list[Any]], tmp_path: Path) -> None:
    Path("list.yaml").write_text("preset: quick\nrows: [{attack: none}]\n", encoding="utf-8")
    noted = called("refine_lab.lists.compute.compute")
    assert _typed("run-list", "list.yaml", "none", "sig", "--commit").exit_code == 0
    rows, *others = noted
    assert isinstance(rows, Rows)
    assert others == [("none", "sig"), True, tmp_path, True]


def test_run_list_hands_a_list_to_a_cluster(called: Callable[..., list[Any]], tmp_path: Path) -> None:
    Path("list.yaml").write_text("preset: quick\nrows: [{attack: none}]\n", encoding="utf-8")
    noted = called("refine_lab.cluster.compute.compute")
    options = ["--engine", "ray", "--home", "/shared", "--apart", "--cpus", "4", "--gpus", "0.5", "--stop-at-first"]
    assert _typed("run-list", "list.yaml", *options).exit_code == 0
    assert noted[1:] == [(), False, tmp_path, Cluster(Path("/shared"), True, 4, 0.5), False]


def test_options_that_contradict_each_other_are_refused() -> None:
    Path("list.yaml").write_text("preset: quick\nrows: [{attack: none}]\n", encoding="utf-8")
    with pytest.raises(UserError, match="--apart is for a folder on each node; give it by --home"):
        _typed("run-list", "list.yaml", "--engine", "ray", "--apart")
    with pytest.raises(UserError, match="--epsilon and --length bound the same pattern; give one of them"):
        _typed("adapt", ".", "--epsilon", "8", "--length", "3", "--out", "adapted.json")


def test_fill_fills_pages_and_draws_the_runs(called: Callable[..., list[Any]], tmp_path: Path) -> None:
    filled, drawn = called("refine_lab.pages.fill.fill"), called("refine_lab.pages.overview.write")
    assert _typed("fill", "README.md", "docs/a.md").exit_code == 0
    assert filled == [[Path("README.md"), Path("docs/a.md")], tmp_path]
    assert drawn == [tmp_path]
    assert _typed("fill").exit_code == 2


def test_page_says_where_the_template_is(called: Callable[..., list[Any]], tmp_path: Path) -> None:
    noted = called("refine_lab.plot_page.install", Path("template.html"))
    assert _typed("page").stdout == "template.html: `dvc plots show` draws without a network now\n"
    assert noted == [tmp_path]


def test_difference_prints_its_report(called: Callable[..., list[Any]]) -> None:
    noted = called("refine_lab.difference.report", "All figures are as committed.\n")
    assert _typed("difference").stdout == "All figures are as committed.\n"
    assert noted == [Path()]
