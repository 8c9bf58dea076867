"""A stage that was killed while it wrote leaves nothing that its next run does not clear away."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from gates import HOOK, Gate, group
from support import environment, run_stage


@pytest.mark.parametrize("stage", ["download", "poison_dataset"])
def test_the_next_run_removes_what_was_begun(project: Path, tmp_path: Path, stage: str) -> None:
    if stage == "poison_dataset":
        assert run_stage(project, "download").returncode == 0
    gate = Gate(tmp_path, at=r"\.train\.partial/shard-000001\.tar")
    env = environment(PYTHONPATH=f"{HOOK}:src", **gate.variables)
    with group(project, sys.executable, f"stages/{stage}.py", env=env) as killed, gate.reached(killed):
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    begun = [path for path in project.rglob(".*.partial") if path.is_dir()]
    assert {path.name for path in begun} >= {".train.partial", ".test.partial"}
    assert run_stage(project, stage).returncode == 0
    assert list(project.rglob(".*.partial")) == []
