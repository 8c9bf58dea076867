"""Several processes for one stage: each knows its number, and the first one speaks for all."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import environment

STAGE = """
import os, sys, time
from pathlib import Path
from refine.system.errors import UserError
from refine.system.launch import rank
from refine.system.stage import run

def work():
    Path(f"{rank()}.pid").write_text(str(os.getpid()))
    BODY
    return {"world": os.environ.get("WORLD_SIZE")}

run("some-stage", work, parallel=True)
"""


def _command(folder: Path, body: str) -> tuple[list[str], dict[str, str]]:
    (folder / "stage.py").write_text(STAGE.replace("BODY", body))
    source = str(Path(__file__).parents[2] / "src")
    return [sys.executable, "stage.py"], environment(PYTHONPATH=source, REFINE_PROCESSES="2")


def _run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    command, env = _command(folder, body)
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_each_process_knows_its_number_and_one_of_them_records(tmp_path: Path) -> None:
    told = "f\"here {rank()} {os.environ['LOCAL_RANK']} {os.environ['WORLD_SIZE']}\\n\""
    result = _run(tmp_path, f"os.write(1, {told}.encode())")  # in one piece, which print is not
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == ["here 0 0 2", "here 1 1 2"]
    assert '"world": "2"' in (tmp_path / "metrics/runtime/some-stage.json").read_text()


def test_an_error_of_all_is_told_once(tmp_path: Path) -> None:
    result = _run(tmp_path, "raise UserError('the cat sits on the cable')")
    assert result.returncode == 1
    assert result.stderr == "error: some-stage: the cat sits on the cable\n"


COMMON_STEPS = """
    import torch
    from refine.training.processes import Processes, joined
    with joined() as compute:
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
    result = _run(tmp_path, "os.kill(os.getpid(), 9) if rank() else time.sleep(50)")
    assert result.returncode == 128 + 9
    assert result.stderr.startswith("error: some-stage: a process of this stage was killed")
    assert result.stderr.count("\n") == 1


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _heed_interrupts() -> None:
    """What runs in the background ignores them, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _started(folder: Path) -> list[int]:
    """Process ids of both, once they are there."""
    names = [folder / f"{rank}.pid" for rank in range(2)]
    deadline = time.monotonic() + 30
    while not all(name.is_file() and name.read_text() for name in names):
        assert time.monotonic() < deadline, "the processes never started"
        time.sleep(0.02)
    return [int(name.read_text()) for name in names]


def _gone(pids: list[int]) -> bool:
    """Whether they have ended, or do so soon."""
    deadline = time.monotonic() + 10
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(_alive, pids))


PROC = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")


@PROC
@pytest.mark.parametrize("sent", ["SIGTERM to the launcher", "SIGINT to the launcher", "SIGINT to the group"])
def test_a_signal_to_the_launcher_or_the_group_leaves_no_process(tmp_path: Path, sent: str) -> None:
    command, env = _command(tmp_path, "time.sleep(50)")
    with subprocess.Popen(
        command,
        env=env,
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=_heed_interrupts,
    ) as launcher:
        pids = _started(tmp_path)
        number = signal.Signals[sent.split()[0]]
        if sent.endswith("group"):
            os.killpg(launcher.pid, number)
        else:
            launcher.send_signal(number)
        assert launcher.wait(20) in (130, 128 + 15)
        assert _gone(pids)


@PROC
def test_processes_of_a_stage_that_nobody_waits_for_are_ended_before_they_finish(tmp_path: Path) -> None:
    command, env = _command(tmp_path, "time.sleep(3)\n    Path('finished').touch()")
    said = tmp_path / "said"
    with subprocess.Popen(
        ["sh", "-c", f"{shlex.join(command)} 2> {said}; true"], env=env, cwd=tmp_path, start_new_session=True
    ) as waiting:
        pids = _started(tmp_path)
        waiting.kill()
    assert _gone(pids)
    deadline = time.monotonic() + 10
    while not said.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert said.read_text().startswith("error: some-stage: the process that started this stage is gone; `dvc repro`")
    assert not (tmp_path / "finished").exists()
