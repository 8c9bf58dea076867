"""`refine dvc`: what is looked at before DVC runs, and that DVC gets what it was given."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import PROGRAM, refine
from repositories import repository
from support import PROJECT, TINY_PARAMS, environment, is_one_sentence, run, write_params

BADNET = "params.yaml: poison_dataset.attack.name: 'badnet' is not known, did you mean 'badnets'?"
CHOSEN = "${poison_dataset.attack.name}.txt"
PIPELINE = {
    "stages": {"only": {"cmd": f"cp {CHOSEN} done", "deps": [CHOSEN]}},
    "plots": ["pictures/one.png", {"Two": {"x": "a", "y": {"two.csv": "b", "three.csv": "c"}}}],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a DVC project, in which the test stands."""
    folder = tmp_path / "project"
    (folder / ".dvc/tmp").mkdir(parents=True)
    write_params(folder, copy.deepcopy(TINY_PARAMS))
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


class Executed(Exception):  # noqa: N818 (it is none)
    """DVC would run now, with these words."""


@pytest.fixture(autouse=True)
def _not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(path: str, words: list[str]) -> None:
        raise Executed(path, words)

    monkeypatch.setattr(os, "execv", execute)


def _passes(printed: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Sees that DVC would run with these arguments; gives what was said before."""
    printed.readouterr()
    with pytest.raises(Executed) as executed:
        refine(printed, "dvc", *arguments)
    path, words = executed.value.args
    assert Path(path) == Path(sys.executable).parent / "dvc"
    assert words == ["dvc", *arguments]
    return printed.readouterr().err


def _wrong(project: Path) -> None:
    content: dict[str, Any] = copy.deepcopy(TINY_PARAMS)
    content["poison_dataset"]["attack"]["name"] = "badnet"
    write_params(project, content)


@pytest.mark.parametrize(
    "arguments",
    [
        ("repro",),
        ("repro", "-s", "only"),
        ("-q", "repro"),
        ("exp", "run"),
        ("experiments", "run", "--queue"),
        ("exp", "run", "-S", "train_backdoor.seed=2"),
    ],
)
@pytest.mark.usefixtures("project")
def test_parameters_are_checked_before_stages_run(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert _passes(capsys, *arguments) == ""
    _wrong(project)
    assert refine(capsys, "dvc", *arguments).is_one_sentence(BADNET)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("exp", "show"),
        ("metrics", "diff", "main"),
        ("exp", "run", "--run-all"),
        ("repro", "--help"),
        ("repro", "--no-such-option"),
        ("no-such-command",),
        ("--version",),
    ],
)
def test_other_commands_run_whatever_the_parameters_are(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    _wrong(project)
    assert _passes(capsys, *arguments) == ""


@pytest.mark.parametrize(
    ("change", "mention"),
    [
        ("poison_dataset.attack.name=badnet", BADNET),
        ("params.yaml:poison_dataset.attack.name=badnet", BADNET),
        ("train_backdoor.recipe.epochs=0", "params.yaml: train_backdoor.recipe.epochs: input should be"),
        ("train_backdoor.sed=2", "params.yaml: train_backdoor: 'sed' is not known, did you mean 'seed'?"),
        ("+attacks.badnets.rat=0.2", "attacks.badnets: 'rat' is not known, did you mean 'rate'?"),
        ("+atacks.badnets.rate=0.2", "section 'atacks' is not known, did you mean 'attacks'?"),
        ("poison_dataset.attack.name=badnets,badnet", BADNET),
        ("poison_dataset.attack.name=choice(badnets,badnet)", BADNET),
        ("~evaluate.batch_size", "PASSES"),
        ("train_backdoor.seed=2", "PASSES"),
        ("train_backdoor.recipe.optimizer.lr=1e-3", "PASSES"),
        ("+attacks.wanet={rate: 0.3}", "PASSES"),
        ("attacks.wanet.rate=0.3", "PASSES"),  # DVC tells of the plus that it wants
        ("other.yaml:poison_dataset.attack.name=badnet", "PASSES"),
        ("no grammar", "PASSES"),
    ],
)
def test_what_would_be_changed_is_checked_as_dvc_would_change_it(
    project: Path, capsys: pytest.CaptureFixture[str], change: str, mention: str
) -> None:
    before = (project / "params.yaml").read_bytes()
    arguments = ("exp", "run", "--queue", "-S", "train_refine.seed=3", "--set-param", change)
    if mention == "PASSES":
        assert _passes(capsys, *arguments) == ""
    else:
        assert refine(capsys, "dvc", *arguments).is_one_sentence(mention)
    assert (project / "params.yaml").read_bytes() == before


def test_a_change_can_mend_what_the_file_has_wrong(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _wrong(project)
    assert _passes(capsys, "exp", "run", "-S", "poison_dataset.attack.name=badnets") == ""


def test_a_file_that_is_no_yaml_is_told_before_anything_is_changed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text("download: [", encoding="utf-8")
    for more in ((), ("-S", "train_backdoor.seed=2")):
        assert refine(capsys, "dvc", "exp", "run", *more).is_one_sentence("params.yaml cannot be read as YAML")


def test_a_setting_of_the_machine_is_checked_too(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFINE_TREADS", "2")
    assert refine(capsys, "dvc", "repro").is_one_sentence("REFINE_TREADS is not known")
    assert _passes(capsys, "status") == ""


def test_from_a_folder_within_and_from_elsewhere_the_projects_file_is_meant(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _wrong(project)
    (project / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(project / "data/raw")
    assert refine(capsys, "dvc", "repro").is_one_sentence(f"../../{BADNET}")
    monkeypatch.chdir(tmp_path)
    assert _passes(capsys, "repro") == ""  # where there is no project, DVC says so
    assert refine(capsys, "dvc", "--cd", "project", "repro").is_one_sentence(f"project/{BADNET}")


def test_a_broken_lock_file_is_removed_before_any_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("status",), ("repro",)):
        (project / ".dvc/tmp/rwlock").touch()
        assert "rwlock was damaged, as by a kill or a full disk" in _passes(capsys, *arguments)
        assert not (project / ".dvc/tmp/rwlock").exists()


def test_one_in_use_keeps_stages_from_running_and_nothing_else(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".dvc/tmp/rwlock").write_text(f'{{"read": {{"a": [{{"pid": {os.getppid()}, "cm', encoding="utf-8")
    told = f"rwlock is damaged, and process {os.getppid()}, which it names, may be using it"
    assert told in _passes(capsys, "status")
    assert refine(capsys, "dvc", "repro").is_one_sentence(told)


@pytest.mark.parametrize("command", ["show", "diff"])
def test_missing_files_of_plots_are_named(project: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    told = _passes(capsys, "plots", command)
    assert told.startswith("error: pictures/one.png and 2 more files are missing, without which `dvc plots` draws no")
    assert _passes(capsys, "plots", "templates") == ""
    (project / "pictures").mkdir()
    for name in ("pictures/one.png", "two.csv", "three.csv"):
        (project / name).touch()
    assert _passes(capsys, "plots", command) == ""


def test_help_is_its_own_and_that_of_commands_is_dvcs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Then DVC runs" in refine(capsys, "dvc", "--help").out
    assert _passes(capsys) == ""


def test_the_real_dvc_runs_what_passes_and_never_sees_what_does_not(project: Path) -> None:
    shutil.rmtree(project / ".dvc")
    (project / "badnets.txt").write_text("the stage ran", encoding="utf-8")
    repository(project)
    env = environment(PYTHONPATH=str(PROJECT / "src"))
    command = (sys.executable, "-c", PROGRAM, "dvc", "exp", "run", "-S")
    plain = run(project, "dvc", *command[4:], "poison_dataset.attack.name=badnet")
    assert plain.returncode != 0
    assert "did you mean" not in plain.stderr, "DVC says it itself: the look before it can go"
    assert run(project, "git", "checkout", "params.yaml").returncode == 0
    unknown = run(project, *command[:-3], "no-such-command", env=env)
    assert unknown.stderr.count("invalid choice") == 1, "it is told twice"
    refused = run(project, *command, "poison_dataset.attack.name=badnet", env=env)
    assert is_one_sentence(refused, BADNET)
    assert refused.stdout == ""
    ended = run(project, *command, "train_backdoor.seed=2", env=env)
    assert ended.returncode == 0, ended.stderr
    assert "Running stage 'only'" in ended.stdout
    assert (project / "done").read_text(encoding="utf-8") == "the stage ran"
    assert yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))["train_backdoor"]["seed"] == 2
