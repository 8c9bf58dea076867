"""Several processes for one stage: each knows its number, and the first one speaks for all."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gates import group
from support import PROJECT, environment, run

STAGE = """
import os, signal, sys
from pathlib import Path
from refine.core.errors import UserError
from refine.core.launch import rank
from refine.core.stage import run

def work(machine):
    BODY
    return {"world": os.environ.get("WORLD_SIZE")}

run("some-stage", work, Path("metrics/runtime"), parallel=True)
"""
WAIT = "os.write(1, b'here\\n')\n    signal.pause()"
"""Both processes of a stage that waits hold its standard output, which ends when the last of them does."""


def _stage(folder: Path, body: str) -> tuple[str, str]:
    (folder / "stage.py").write_text(STAGE.replace("BODY", body), encoding="utf-8")
    return sys.executable, "stage.py"


def _environment() -> dict[str, str]:
    return environment(PYTHONPATH=str(PROJECT / "src"), REFINE_PROCESSES="2")


def _run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    return run(folder, *_stage(folder, body), env=_environment())


def test_each_process_knows_its_number_and_one_of_them_records(tmp_path: Path) -> None:
    told = "f\"here {rank()} {os.environ['LOCAL_RANK']} {os.environ['WORLD_SIZE']}\\n\""
    result = _run(tmp_path, f"os.write(1, {told}.encode())")  # in one piece, which print is not
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == ["here 0 0 2", "here 1 1 2"]
    assert '"world": "2"' in (tmp_path / "metrics/runtime/some-stage.json").read_text(encoding="utf-8")


def test_an_error_of_all_is_told_once(tmp_path: Path) -> None:
    result = _run(tmp_path, "raise UserError('the cat sits on the cable')")
    assert result.returncode == 1
    assert result.stderr == "error: some-stage: the cat sits on the cable\n"


COMMON_STEPS = """
    import torch
    from refine.training.processes import Processes, joined
    with joined(machine) as compute:
        for step in range(100):
            Processes(compute).mean({{"step": torch.tensor(1.0)}})
            if step == 50 and rank() == {guilty}:
                raise UserError("the cat sits on this cable")
"""


@pytest.mark.parametrize("guilty", [0, 1])
def test_an_error_of_one_while_the_others_wait_for_it_is_one_sentence(tmp_path: Path, guilty: int) -> None:
    result = _run(tmp_path, COMMON_STEPS.format(guilty=guilty))
    assert result.returncode == 1
    said = [line for line in result.stderr.splitlines() if not line.startswith("device ")]
    assert said == ["error: some-stage: the cat sits on this cable"]
    assert not (tmp_path / "metrics").exists()


def test_a_process_that_is_killed_ends_all_and_the_launcher_says_so(tmp_path: Path) -> None:
    result = _run(tmp_path, "os.kill(os.getpid(), 9) if rank() else signal.pause()")
    assert result.returncode == 128 + 9
    assert result.stderr.startswith("error: some-stage: a process of this stage was killed")
    assert result.stderr.count("\n") == 1


def _both_wait(launcher: subprocess.Popen[str]) -> None:
    assert launcher.stdout is not None
    assert [launcher.stdout.readline() for _ in range(2)] == ["here\n"] * 2


@pytest.mark.parametrize("sent", ["SIGTERM to the launcher", "SIGINT to the launcher", "SIGINT to the group"])
def test_a_signal_to_the_launcher_or_the_group_leaves_no_process(tmp_path: Path, sent: str) -> None:
    with group(tmp_path, *_stage(tmp_path, WAIT), env=_environment()) as launcher:
        _both_wait(launcher)
        number = signal.Signals[sent.split()[0]]
        if sent.endswith("group"):
            os.killpg(launcher.pid, number)
        else:
            launcher.send_signal(number)
        launcher.communicate()  # comes back when all are gone
        assert launcher.returncode in (130, 128 + 15)


def test_processes_of_a_stage_that_nobody_waits_for_are_ended_before_they_finish(tmp_path: Path) -> None:
    stage = shlex.join(_stage(tmp_path, WAIT))
    with group(tmp_path, "sh", "-c", f"{stage}; true", env=_environment()) as waiting:
        _both_wait(waiting)
        waiting.kill()
        _, said = waiting.communicate()  # comes back when all are gone
    assert said.startswith("error: some-stage: the process that started this stage is gone; `dvc repro`")


def _machines(folder: Path, body: str, **settings: str) -> list[subprocess.CompletedProcess[str]]:
    """The stage on two machines of one process each, which are both this one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"REFINE_NODES": "2", "REFINE_MEETING": f"127.0.0.1:{port}", **settings}
    env = environment(PYTHONPATH=str(PROJECT / "src"), **variables)
    command = _stage(folder, body)
    with group(folder, *command, env=env) as one, group(folder, *command, env=env) as other:
        both = [(each, *each.communicate()) for each in (one, other)]
    return [subprocess.CompletedProcess(command, each.returncode, out, err) for each, out, err in both]


def test_two_machines_find_each_other_and_one_of_all_processes_records(tmp_path: Path) -> None:
    told = "f\"here {rank()} {os.environ['LOCAL_RANK']} {os.environ['WORLD_SIZE']}\\n\""
    results = _machines(tmp_path, f"os.write(1, {told}.encode())")
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]
    assert sorted(result.stdout for result in results) == ["here 0 0 2\n", "here 1 0 2\n"]
    assert '"world": "2"' in (tmp_path / "metrics/runtime/some-stage.json").read_text(encoding="utf-8")


def test_processes_begin_again_together_when_one_is_lost(tmp_path: Path) -> None:
    steps = COMMON_STEPS.format(guilty="1 and not Path('lost').exists()").replace(
        'raise UserError("the cat sits on this cable")', "(Path('lost').touch(), os.kill(os.getpid(), 9))"
    )
    late = "\n    if rank() and Path('lost').exists():\n        __import__('time').sleep(3)"  # the other one waits
    result = run(tmp_path, *_stage(tmp_path, late + steps), env={**_environment(), "REFINE_RESTARTS": "1"})
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "metrics/runtime/some-stage.json").is_file()


def test_machines_that_are_not_told_where_to_meet_are_refused(tmp_path: Path) -> None:
    env = environment(PYTHONPATH=str(PROJECT / "src"), REFINE_NODES="2")
    result = run(tmp_path, *_stage(tmp_path, "pass"), env=env)
    assert result.returncode == 1
    assert result.stderr == (
        "error: some-stage: REFINE_NODES needs REFINE_MEETING, HOST:PORT of the first machine, on each of them\n"
    )
