"""What stopped processes left behind is listed with its size, and removed where nobody uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from commands import refine
from gates import Gate, group, program
from refine.core.errors import UserError
from refine.training.checkpoint import Checkpoints, checkpoints
from refine.upkeep import leftovers
from repositories import ok, repository
from support import environment
from tiny import CPU

EXPERIMENTS = Path(".dvc/tmp/exps")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which the test stands."""
    (tmp_path / "project/.dvc").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def _listed(printed: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    """The rows of the table; with --remove the number of those removed and in use."""
    lines = refine(printed, "leftovers", *arguments).out.splitlines()
    if lines[0] == "nothing is left over":
        return []
    assert lines[0].split() == ["left", "over", "epochs", "MiB", "in", "use"]
    return [line.split() for line in lines[1:]]


def _held(seed: int) -> AbstractContextManager[Checkpoints | None]:
    return checkpoints(Path(leftovers.SCRATCH), "train-refine", {"seed": seed}, "fp32", (), CPU)


def _stopped(seed: int) -> str:
    """A training that was stopped; the name of its folder."""
    with contextlib.suppress(UserError), _held(seed) as run:
        assert run is not None
        for held, epoch in ((run.part("encoder"), 9), (run, 7)):
            held.save(epoch, {"history": [], "kept": {}, "large": torch.zeros(2**17)})
        raise UserError("stopped")
    return f"{leftovers.SCRATCH}/{run.folder.name}"


def test_where_nothing_is_left_it_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _listed(capsys) == []
    assert _listed(capsys, "--remove") == []


def test_checkpoints_are_listed_with_epochs_and_size_and_those_in_use_stay(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted([_stopped(1), _stopped(2)])
    assert _listed(capsys) == [[name, "encoder", "9,", "7", "1.0", "False"] for name in names]
    with _held(2) as used:
        assert used is not None
        rows = _listed(capsys, "--remove")
        assert {row[0]: row[-1] for row in rows[:-1]} == {name: str(name.endswith(used.folder.name)) for name in names}
        assert rows[-1] == ["1", "removed,", "1", "in", "use"]
        assert list((project / leftovers.SCRATCH).iterdir()) == [used.folder.resolve()]


def test_a_training_that_ends_while_it_is_listed_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stopped(1)

    def late(folder: Path) -> object:
        Checkpoints(folder).remove()
        raise FileNotFoundError

    monkeypatch.setattr(leftovers, "hold", late)
    assert _listed(capsys) == []


def test_outputs_that_were_begun_are_listed_and_removed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = project / "data/poisoned/.train.partial"
    begun.mkdir(parents=True)
    (begun / "shard-000000.tar").write_bytes(bytes(2**20))
    (project / "metrics").mkdir()
    (project / "metrics/.evaluate.json.partial").touch()
    others = [project / name for name in ("data/own/.mine.partial", ".venv/.x.partial", "data/whole")]
    for other in others:
        other.mkdir(parents=True)
    rows = [
        ["data/poisoned/.train.partial", "-", "1.0", "False"],
        ["metrics/.evaluate.json.partial", "-", "0.0", "False"],
    ]
    assert _listed(capsys) == rows
    assert _listed(capsys, "--remove") == [*rows, ["2", "removed,", "0", "in", "use"]]
    assert _listed(capsys) == []
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("name", ["dvc", "stages/poison_dataset.py", "refine"])
def test_what_is_being_written_stays(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    begun = project / "data/.train.partial"
    begun.mkdir(parents=True)
    with group(project, sys.executable, program(tmp_path, name), env=environment()) as living:
        assert living.stdout is not None
        living.stdout.readline()
        assert _listed(capsys, "--remove") == [
            ["data/.train.partial", "-", "0.0", "True"],
            ["0", "removed,", "1", "in", "use"],
        ]
        assert begun.is_dir()
    assert _listed(capsys) == [["data/.train.partial", "-", "0.0", "False"]]


def _copied(project: Path, name: str = "tmpabcdefgh") -> Path:
    """What a killed `dvc exp run --temp` leaves."""
    copy = project / EXPERIMENTS / "standalone" / name
    (copy / ".dvc").mkdir(parents=True)
    (copy / "data").write_bytes(bytes(2**21))
    for home in ("run", "standalone/run"):
        note = project / EXPERIMENTS / home / f"rev-{name}" / f"rev-{name}.run"
        note.parent.mkdir(parents=True)
        note.write_text(json.dumps({"root_dir": str(copy), "status": 2}), encoding="utf-8")
    return copy


def test_copies_of_killed_experiments_go_with_what_dvc_notes_of_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _copied(project), _copied(project, "tmpother")
    queued = project / EXPERIMENTS / "tmpqueued"
    queued.mkdir()
    rows = [[str(copy.relative_to(project)), "-", "2.0", "False"] for copy in (first, second)]
    assert [[row[0], row[1], row[2], row[3]] for row in _listed(capsys)] == rows
    leftovers.forget(first, project)
    assert second.is_dir()
    assert len(list((project / EXPERIMENTS).rglob("*.run"))) == 2
    assert _listed(capsys, "--remove")[-1] == ["1", "removed,", "0", "in", "use"]
    assert list((project / EXPERIMENTS).rglob("rev-*")) == []
    assert queued.is_dir(), "DVC itself removes those of its queue"


@pytest.mark.parametrize(
    ("place", "words", "used"),
    [
        ("copy", ["stages/train_refine.py"], True),
        ("copy", ["dvc", "exp", "run", "--temp"], True),
        ("project", ["dvc", "exp", "run", "--temp"], True),
        ("project", ["dvc", "repro"], False),
    ],
)
def test_a_copy_that_somebody_works_in_or_may_be_making_stays(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, words: list[str], used: bool
) -> None:
    copy = _copied(project)
    folder = copy if place == "copy" else project
    with group(folder, sys.executable, program(tmp_path, words[0]), *words[1:], env=environment()) as living:
        assert living.stdout is not None
        living.stdout.readline()
        assert _listed(capsys, "--remove")[0][-1] == str(used)
        assert copy.exists() == used


def test_the_copy_of_a_real_experiment_that_was_killed_goes_and_dvc_forgets_it(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(tmp_path, at="")
    (project / "data").touch()
    pipeline = f"stages: {{wait: {{cmd: cat {gate.variables['GATE']}, deps: [data]}}}}\n"
    (project / "dvc.yaml").write_text(pipeline, encoding="utf-8")
    (project / ".dvc").rmdir()
    repository(project)
    with group(project, "dvc", "exp", "run", "--temp", env=environment()) as experiment, gate.reached(experiment):
        ((copy, *_, used),) = _listed(capsys)
        assert (project / copy / "dvc.yaml").is_file()
        assert used == "True"
        os.killpg(experiment.pid, signal.SIGKILL)
        experiment.wait()
    assert "Running" in ok(project, "dvc", "exp", "show")
    assert _listed(capsys, "--remove")[-1] == ["1", "removed,", "0", "in", "use"]
    assert not (project / copy).exists()
    assert "Running" not in ok(project, "dvc", "exp", "show")


def test_it_finds_the_project_from_a_folder_in_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = _stopped(1)
    (project / "data/raw").mkdir(parents=True)
    os.chdir(project / "data/raw")
    assert [row[0] for row in _listed(capsys)] == [name]


def test_outside_a_project_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refine(capsys, "leftovers").is_one_sentence("lies in no DVC project; go to the checkout's folder")
