"""Computing a list of runs: in clones that nobody shares, each run once, whatever becomes of the others."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refine.core.errors import UserError
from refine.reports import clones, rows
from refine.reports.clones import Clone
from refine.reports.lists import Row, Rows
from refine.reports.run import HOME, read_all
from repositories import ok
from support import run

NAME = "folder-quick-badnets-default-s1"
LISTED = Rows(preset="quick", rows=[Row(attack="badnets"), Row(attack="none", variant="benign")])


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, preset: Path) -> list[str]:
    """Rows that are computed, by their attack; computing is replaced by an empty folder, and fails for `badnets`."""
    attacks: list[str] = []

    def compute(_preset: str, row: Row, *_others: Any) -> Path:
        attacks.append(row.attack)
        if row.attack == "badnets":
            raise UserError("no luck")
        folder = preset / HOME / f"folder-quick-{row.attack}-{row.variant}-s1"
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
        return folder

    monkeypatch.setattr(rows, "_computed", compute)
    return attacks


def test_a_list_is_computed_in_a_clone_once_and_committed(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (preset / "params.yaml").read_bytes()
    rows.compute(LISTED, ["badnets"], commit=True, project=preset)
    assert list(read_all(preset / HOME)) == [NAME]
    assert ok(preset, "git", "log", "-1", "--format=%s").strip() == f"The run {NAME}"
    assert ok(preset, "git", "status", "--porcelain", "metrics", "params.yaml") == ""
    assert (preset / "params.yaml").read_bytes() == before
    assert run(preset / ".rows/1", "dvc", "cache", "dir").stdout.strip() == str(preset / ".dvc/cache")

    monkeypatch.setattr(rows, "_computed", lambda *_: pytest.fail("a recorded run was computed again"))
    rows.compute(LISTED, ["badnets"], commit=True, project=preset)


def test_a_row_with_settings_of_its_own_is_computed_though_the_cache_has_its_parameters(preset: Path) -> None:
    def cached() -> set[Path]:
        return {path for path in (preset / ".dvc/cache").rglob("*") if path.is_file()}

    before = cached()
    row = Row(attack="badnets", variant="plain", machine={"REFINE_THREADS": 1, "ATEN_CPU_CAPABILITY": "default"})
    rows.compute(Rows(preset="quick", rows=[row]), [], commit=False, project=preset)
    (found,) = read_all(preset / HOME).values()
    assert found.facts.machine == row.machine
    assert found.facts.changes == {}
    assert set(found.facts.runtime) == {"download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"}
    for stage in ("train-backdoor", "train-refine", "evaluate"):
        assert found.facts.runtime[stage]["threads"] == 1
        assert found.facts.runtime[stage]["instructions"] == "DEFAULT"
    assert cached() == before
    assert not (preset / ".rows" / found.folder.name).exists()


def test_a_row_that_fails_says_why_and_the_others_go_on(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=f"1 of 2 rows failed, as was told above: {NAME}; mend"):
        rows.compute(LISTED, [], commit=True, project=preset)
    assert computed == ["badnets", "none"]
    assert f"{NAME} failed: no luck" in caplog.messages
    assert ok(preset, "git", "log", "-1", "--format=%s").strip() == "The run folder-quick-none-benign-s1"


def test_what_dvc_ends_with_is_told(preset: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = Row(attack="badnets", changes={"attacks.badnets.rate": 0.001})  # less than one image
    with pytest.raises(UserError, match="1 of 1 rows failed"):
        rows.compute(Rows(preset="quick", rows=[row]), [], commit=False, project=preset)
    assert any("`dvc repro` ended with status " in message for message in caplog.messages)
    assert not (preset / HOME).exists()


def test_a_row_that_another_process_computes_is_passed_over_with_a_word(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with clones.lock(preset, NAME):
        rows.compute(LISTED, [], commit=False, project=preset)
    assert computed == ["none"]
    assert f"{NAME} is passed over: another process is computing it" in caplog.messages


def test_a_word_that_is_no_attack_of_the_list_is_refused(preset: Path) -> None:
    with pytest.raises(UserError, match="no row has the attack badnet; the list has badnets, none"):
        rows.compute(LISTED, ["badnet"], commit=False, project=preset)


def test_what_the_clones_will_not_have_is_told(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("dvc.yaml", "stages/evaluate.py", "src/refine/new.py", "src/refine/newer.py"):
        with (preset / name).open("a", encoding="utf-8") as file:
            file.write("# a remark\n")
    rows.compute(LISTED, ["none"], commit=False, project=preset)
    (told,) = (message for message in caplog.messages if message.startswith("warning: "))
    assert told.endswith(
        "without what is not committed here: dvc.yaml, stages/evaluate.py, src/refine/new.py and 1 more"
    )
    assert computed == ["none"]


def test_nothing_is_told_of_a_clean_checkout(
    preset: Path, computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows.compute(LISTED, ["none"], commit=False, project=preset)
    assert computed == ["none"]
    assert caplog.messages == []


@pytest.mark.parametrize("tracked", [True, False])
def test_a_preset_that_is_not_committed_is_refused_before_anything_is_computed(
    preset: Path, computed: list[str], tracked: bool
) -> None:
    path = preset / "presets/quick.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
    if not tracked:
        ok(preset, "git", "rm", "-q", "--cached", "presets/quick.yaml")
        ok(preset, "git", "commit", "-qm", "without")
    with pytest.raises(UserError, match=r"presets/quick.yaml is not committed as it is here; commit it"):
        rows.compute(LISTED, ["none"], commit=False, project=preset)
    assert computed == []


# -- clones


def test_two_lists_at_once_have_a_clone_each_and_the_next_takes_the_first_again(preset: Path) -> None:
    with clones.shared(preset) as first, clones.shared(preset) as second:
        assert [first.folder.name, second.folder.name] == ["1", "2"]
    (preset / "README.md").write_text("newer\n", encoding="utf-8")
    ok(preset, "git", "commit", "-qam", "newer")
    left = [preset / ".rows/1" / name for name in (".git/index.lock", ".dvc/tmp/rwlock")]  # as a kill may leave them
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"cut', encoding="utf-8")
    with clones.shared(preset) as again:
        assert again.folder == first.folder
        assert [path for path in left if path.exists()] == []
        assert (again.folder / "README.md").read_text(encoding="utf-8") == "newer\n"


def test_the_checkpoints_of_a_list_are_found_in_every_clone(preset: Path) -> None:
    with clones.shared(preset) as first, clones.shared(preset) as second:
        (first.folder / ".scratch/train-refine-0").mkdir()
        assert (second.folder / ".scratch/train-refine-0").is_dir()
        assert (preset / ".scratch/train-refine-0").is_dir()
        with clones.alone(preset, "run", 0) as own:
            assert not (own.folder / ".scratch/train-refine-0").exists()


def test_a_clone_stays_locked_while_dvc_outlives_a_list_that_was_killed(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    started: list[subprocess.Popen[bytes]] = []

    def outlive(_command: list[str], pass_fds: set[int], **_others: Any) -> subprocess.CompletedProcess[bytes]:
        started.append(subprocess.Popen(waits, stdin=subprocess.PIPE, pass_fds=pass_fds))
        return subprocess.CompletedProcess(waits, 0)

    monkeypatch.setattr(rows.subprocess, "run", outlive)
    with clones.lock(preset, "1") as clone, clones.lock(preset, NAME) as row:
        assert clone is not None
        assert row is not None
        rows._repro(Clone(preset / ".rows/1", clone), {}, row)
    for name in ("1", NAME):
        with clones.lock(preset, name) as held:
            assert held is None
    started[0].communicate()
    for name in ("1", NAME):
        with clones.lock(preset, name) as held:
            assert held is not None


# -- commits


@pytest.fixture
def recorded(preset: Path) -> Path:
    """The folder of a run that is recorded and not committed, while another git command holds the index."""
    folder = preset / HOME / NAME
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
    (preset / ".git/index.lock").touch()
    return folder


def test_a_commit_waits_for_another_git_command(preset: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "sleep", lambda _: (preset / ".git/index.lock").unlink())
    rows._commit(preset, "The run", recorded)
    assert ok(preset, "git", "log", "-1", "--format=%s").strip() == "The run"


def test_an_index_that_stays_locked_is_told_and_the_run_is_recorded(
    preset: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "sleep", lambda _: None)
    with pytest.raises(UserError, match=rf"the run is recorded in {HOME}/{NAME} and not committed: .*index\.lock"):
        rows._commit(preset, "The run", recorded)


def test_lists_commit_one_after_the_other(preset: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from refine.reports import rows\n"
        "for number in range(5):\n"
        "    folder = Path.cwd() / 'metrics/runs' / f'{sys.argv[1]}-{number}'\n"
        "    folder.mkdir(parents=True); (folder / 'run.json').touch()\n"
        "    rows._commit(Path.cwd(), folder.name, folder)\n"
    )
    lists = [subprocess.Popen([sys.executable, "-c", script, name], cwd=preset) for name in ("a", "b")]
    assert [each.wait() for each in lists] == [0, 0]
    told = set(ok(preset, "git", "log", "--format=%s").splitlines())
    assert {f"{name}-{number}" for name in ("a", "b") for number in range(5)} <= told
    assert ok(preset, "git", "status", "--porcelain", "metrics") == ""
