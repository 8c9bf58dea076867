"""Whatever process of a pipeline is killed, nothing of it goes on."""

from __future__ import annotations

from pathlib import Path

from kills import kill_often


def test_nothing_is_left_behind_and_the_pipeline_goes_on(tmp_path: Path) -> None:
    found = kill_often(tmp_path, kills=5, seed=1)
    assert any(name.endswith(".py") for name in found.killed), "no stage was among them"
    assert found.orphans == []
    assert found.same
