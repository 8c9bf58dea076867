"""What every stage does around its work: exit status, one sentence, the record of the run, a full disk."""

from __future__ import annotations

import errno
import itertools
import json
import platform
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from refine.core import stage
from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.core.stage import Work, run
from support import WATCHDOG, environment, is_one_sentence

RECORDS = Path("metrics/runtime")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def status(work: Work) -> object:
    """Runs the work as the stage `some-stage`, and gives the exit status."""
    with pytest.raises(SystemExit) as ended:
        run("some-stage", work, RECORDS)
    return ended.value.code


def raising(error: BaseException) -> Work:
    """Work that fails."""

    def work(_: Machine) -> None:
        raise error

    return work


def test_work_that_ends_gives_status_0_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(lambda _: None) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def _ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by two seconds whenever it is looked at."""
    monkeypatch.setattr(stage, "time", SimpleNamespace(time=itertools.count(1e9, 2).__next__))


@pytest.mark.usefixtures("_ticks")
def test_the_run_is_recorded_with_what_the_work_tells() -> None:
    assert status(lambda _: {"device": "cpu", "images_per_second": 12.5}) == 0
    record = json.loads(Path("metrics/runtime/some-stage.json").read_text())
    assert record["stage"] == "some-stage"
    assert record["device"] == "cpu"
    assert record["images_per_second"] == 12.5
    assert record["python"] == platform.python_version()
    assert record["seconds"] == 2.0
    assert record["versions"]["torch"].split("+")[0] == sys.modules["torch"].__version__.split("+")[0]


def test_a_user_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(raising(UserError("the cat\n  sat on  the cable; chase it"))) == 1
    assert capsys.readouterr().err == "error: some-stage: the cat sat on the cable; chase it\n"
    assert not Path("metrics").exists()


@pytest.mark.usefixtures("_ticks")
def test_the_time_of_interrupted_runs_that_it_went_on_from_counts() -> None:
    assert status(lambda _: {"earlier_seconds": 1000.0}) == 0
    record = json.loads(Path("metrics/runtime/some-stage.json").read_text())
    assert record["seconds"] == 1002.0
    assert "earlier_seconds" not in record


def test_an_interrupt_gives_status_130_and_no_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(raising(KeyboardInterrupt())) == 130
    told = capsys.readouterr().err
    assert told.startswith("error: some-stage: interrupted, nothing more was recorded")
    assert told.count("\n") == 1
    assert not Path("metrics").exists()


def test_an_interrupt_that_knows_more_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(raising(KeyboardInterrupt("interrupted after 3 of 5 epochs"))) == 130
    assert capsys.readouterr().err == "error: some-stage: interrupted after 3 of 5 epochs\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_sentence_that_names_the_file(capsys: pytest.CaptureFixture[str], code: int) -> None:
    assert status(raising(OSError(code, "No space", "data/big.tar"))) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: some-stage: the disk is full while writing data/big.tar (No space)")
    assert told.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "not allowed"), ValueError("a fault of ours")])
def test_a_fault_of_the_code_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run("some-stage", raising(error), RECORDS)


def test_a_wrong_machine_setting_stops_the_stage_before_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFINE_TREADS", "4")
    assert status(raising(AssertionError("the work ran"))) == 1
    assert "REFINE_TREADS is not known; did you mean REFINE_THREADS?" in capsys.readouterr().err


def test_a_record_that_cannot_be_written_is_told_like_any_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("refine.core.stage.write_json", full)
    assert status(lambda _: None) == 1
    assert "the disk is full while writing metrics/runtime/some-stage.json" in capsys.readouterr().err


def _no_file_above_16_kib() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, 16 * 1024))


def test_a_disk_that_really_fills_up_leaves_no_half_data_set(project: Path) -> None:
    result = subprocess.run(
        [sys.executable, "stages/download.py"],
        cwd=project,
        env=environment(PYTHONPATH="src", PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=_no_file_above_16_kib,
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert is_one_sentence(result, "download: the disk is full"), result.stderr
    assert result.returncode == 1
    assert list((project / "data").glob("raw/*")) == []
    assert list((project / "data").glob("raw/.*")) == []
    assert not (project / "metrics").exists()
