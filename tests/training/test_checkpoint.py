"""Checkpoints: whole or not there, found by their own run alone, held by one process."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import support
from refine.core import files
from refine.core.errors import UserError
from refine.core.registry import ARCHITECTURES, names
from refine.models.device import Compute
from refine.training import checkpoint, clock
from refine.training.checkpoint import Checkpoints, State, checkpoints, run_key
from refine.training.processes import Processes
from support import environment, run_stage, synthetic, tiny_project, write_split
from tiny import CPU

NUMERICS = {"precision": "fp32", "device": "cpu", "processes": 1}
READ = ("data/poisoned/train", "data/poisoned/attack/training", "src/refine/training", "stages/train_backdoor.py")
HOME = Path(".scratch")


def _state(epoch: int, **kept: float) -> State:
    return {
        "module": {"weight": torch.full((3,), float(epoch))},
        "history": [{"epoch": number} for number in range(1, epoch + 1)],
        "kept": {name: {"weight": torch.tensor(value)} for name, value in kept.items()},
    }


def _epoch(state: State | None) -> int:
    assert state is not None
    return len(state["history"])


@pytest.fixture
def run(tmp_path: Path) -> Checkpoints:
    """The checkpoints of one run."""
    return Checkpoints(tmp_path)


def test_the_newest_state_comes_back(run: Checkpoints) -> None:
    assert run.load() is None
    for epoch in (1, 2, 3):
        run.save(epoch, _state(epoch))
    loaded = run.load()
    assert _epoch(loaded) == 3
    assert loaded is not None
    assert loaded["module"]["weight"].tolist() == [3.0] * 3


def test_a_run_that_is_gone_on_with_knows_how_long_it_took_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    run = Checkpoints(tmp_path)
    run.clock.earlier = 500.0
    part = run.part("first")
    part.save(1, _state(1))
    again = Checkpoints(tmp_path)
    assert again.clock.earlier == 0
    again.part("first").load()
    assert again.clock.earlier == 501
    run.clock.earlier = 800.0
    run.save(1, _state(1))
    again.load()
    again.part("first").load()
    assert 800 < again.clock.earlier < again.clock.seconds < 810


def test_the_last_two_stay(run: Checkpoints) -> None:
    for epoch in range(1, 12):
        run.save(epoch, _state(epoch))
    assert sorted(path.name for path in run.folder.iterdir()) == ["epoch-000010.ckpt", "epoch-000011.ckpt"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_it_used(
    run: Checkpoints, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for epoch in (1, 2):
        run.save(epoch, _state(epoch))
    path = run.folder / "epoch-000002.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-100], "flipped": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert _epoch(run.load()) == 1
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


def test_when_all_are_damaged_training_starts_anew(run: Checkpoints) -> None:
    run.save(1, _state(1))
    (run.folder / "epoch-000001.ckpt").write_bytes(b"x")
    assert run.load() is None


def test_what_a_run_keeps_is_written_once_and_comes_back(run: Checkpoints) -> None:
    run.save(1, _state(1, first=0.5))
    written = (run.folder / "kept-first.pt").stat().st_mtime_ns
    run.save(2, _state(2, first=0.5, second=0.25))
    assert (run.folder / "kept-first.pt").stat().st_mtime_ns == written
    state = Checkpoints(run.folder).load()
    assert state is not None
    assert {name: tensors["weight"].item() for name, tensors in state["kept"].items()} == {"first": 0.5, "second": 0.25}


def test_what_a_run_no_longer_keeps_goes_with_the_last_checkpoint_that_names_it(run: Checkpoints) -> None:
    for epoch in (1, 2, 3, 4):
        run.save(epoch, _state(epoch, **{f"of-{epoch}": epoch / 4}))
    assert sorted(path.name for path in run.folder.glob("kept-*")) == ["kept-of-3.pt", "kept-of-4.pt"]
    (run.folder / "epoch-000004.ckpt").write_bytes(b"x")
    state = Checkpoints(run.folder).load()
    assert state is not None
    assert {name: tensors["weight"].item() for name, tensors in state["kept"].items()} == {"of-3": 0.75}


def test_a_state_whose_kept_weights_are_damaged_is_passed_over(run: Checkpoints) -> None:
    run.save(1, _state(1))
    run.save(2, _state(2, second=0.25))
    (run.folder / "kept-second.pt").write_bytes(b"x")
    again = Checkpoints(run.folder)
    assert _epoch(again.load()) == 1
    again.save(2, _state(2, second=0.75))
    state = Checkpoints(run.folder).load()
    assert state is not None
    assert state["kept"]["second"]["weight"].item() == 0.75


def test_a_part_has_its_own_and_they_go_with_the_runs(run: Checkpoints) -> None:
    assert run.empty
    part = run.part("encoder")
    assert run.empty
    part.save(3, _state(3))
    assert not run.empty
    assert run.load() is None
    assert _epoch(run.part("encoder").load()) == 3
    run.remove()
    assert not run.folder.exists()


def test_a_write_that_was_cut_short_leaves_the_state_before(run: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(1, _state(1))

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save(2, _state(2))
    monkeypatch.undo()
    assert _epoch(run.load()) == 1
    run.save(2, _state(2))
    assert _epoch(run.load()) == 2


def test_no_checkpoint_can_run_code(run: Checkpoints, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "crater"),)

    run.save(1, {"bomb": Bomb(), "history": [], "kept": {}})
    with pytest.raises(Exception, match="weights_only"):
        run.load()
    assert not (tmp_path / "crater").exists()


# -- the key


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with something where train-backdoor looks for data."""
    folder = tiny_project(tmp_path_factory.mktemp("project") / "project")
    for name in ("data/poisoned/train/shard-000000.tar", "data/poisoned/attack/training/training.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("as it is")
    return folder


def _key(project: Path, params: dict[str, Any] | None = None, **numerics: Any) -> str:
    return run_key(params or {"seed": 1}, {**NUMERICS, **numerics}, {name: project / name for name in READ})


def test_the_same_run_has_the_same_key(project: Path, tmp_path: Path) -> None:
    assert _key(project) == _key(project) == _key(Path(shutil.copytree(project, tmp_path / "elsewhere")))


@pytest.mark.parametrize(
    "name",
    [
        "data/poisoned/train/shard-000000.tar",
        "data/poisoned/attack/training/training.json",
        "src/refine/training/loop.py",
        "stages/train_backdoor.py",
    ],
)
def test_another_dependency_is_another_run(project: Path, name: str) -> None:
    before = _key(project)
    content = (project / name).read_text()
    (project / name).write_text(content + "\n")
    try:
        assert _key(project) != before
    finally:
        (project / name).write_text(content)
    assert _key(project) == before


def test_other_parameters_precision_device_or_torch_are_another_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [_key(project), _key(project, {"seed": 2}), _key(project, precision="bf16"), _key(project, device="cuda")]
    monkeypatch.setattr(checkpoint.torch, "__version__", "0.1")
    assert len({*keys, _key(project)}) == 5


def test_what_the_stage_does_not_depend_on_changes_nothing(project: Path) -> None:
    before = _key(project)
    (project / "src/refine/evaluation/metrics.py").write_text("changed")
    (project / "README.md").write_text("changed")
    assert _key(project) == before


WATCHED = """
import runpy, sys
from pathlib import Path
from refine.training import checkpoint, clock

counted = []
plain = checkpoint.run_key
checkpoint.run_key = lambda params, numerics, inputs: counted.extend(inputs) or plain(params, numerics, inputs)
sys.argv = [sys.argv[1]]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    files = {name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
    packages = {name for name, file in files.items() if file.endswith("__init__.py")}  # whose files are empty
    print(*(name for name in files if name.startswith("refine.") and name not in packages))
    print(*(name for name in counted if name not in packages))
"""


def test_all_code_that_a_training_loads_is_in_its_key_and_none_that_it_does_not(project: Path) -> None:
    for stage in ("download", "poison_dataset"):
        assert run_stage(project, stage).returncode == 0
    (project / "watched.py").write_text(WATCHED, encoding="utf-8")
    choices = {f"{ARCHITECTURES}.{name}.{part}" for name in names(ARCHITECTURES) for part in ("params", "network")}
    choices.add("refine.models.apart")
    for stage in ("train_backdoor", "train_refine"):
        command = ("python", "-m", "watched", f"stages/{stage}.py")
        ended = support.run(project, *command, env=environment(PYTHONPATH="src"))
        assert ended.returncode == 0, ended.stderr
        loaded, counted = (set(line.split()) for line in ended.stdout.splitlines()[-2:])
        assert loaded <= counted
        assert counted - loaded - choices == {"0", "1", "2"}, "the script, and what it reads"


# -- holding them


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in the project."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(checkpoint, "_code", dict)
    return project / HOME


def _held(compute: Compute = CPU, seed: int = 1) -> Any:
    return checkpoints(HOME, "train-backdoor", {"seed": seed}, "fp32", (), compute)


def test_they_are_gone_when_the_run_ends_well_and_stay_when_it_does_not(here: Path) -> None:
    with contextlib.suppress(UserError), _held() as run:
        run.save(1, _state(1))
        raise UserError("stopped")
    assert len(list(here.iterdir())) == 1
    with _held() as run:
        assert _epoch(run.load()) == 1
    assert list(here.iterdir()) == []


def test_they_stay_when_nobody_is_left_to_record_the_outputs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _held() as run:
        run.save(1, _state(1))
        left = {"getppid": lambda: 1, "getpid": os.getpid, "fstat": os.fstat}
        monkeypatch.setattr(checkpoint, "os", SimpleNamespace(**left))
    with _held() as run:
        assert _epoch(run.load()) == 1


def test_a_run_that_fails_in_its_first_epoch_leaves_nothing(here: Path) -> None:
    with pytest.raises(UserError, match="at once"), _held():
        raise UserError("at once")
    assert list(here.iterdir()) == []


def test_a_second_run_is_refused_with_the_process_of_the_first(here: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; import torch\n"
            "from refine.models.device import Compute\n"
            "from refine.training import checkpoint\n"
            "checkpoint._code, cpu = dict, Compute(torch.device('cpu'), 1)\n"
            "with checkpoint.checkpoints(Path('.scratch'), 'train-backdoor', {'seed': 1}, 'fp32', (), cpu):\n"
            "    print('held', flush=True); sys.stdin.read()",
        ],
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": "src"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} is training this very run"), _held():
        pass
    with _held(seed=2):
        pass
    holder.kill()
    holder.wait()
    with _held() as run:
        assert run is not None


def test_the_lock_of_a_run_that_has_just_ended_is_not_taken_for_this_ones(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fcntl.flock
    seen = []

    def late(*given: Any) -> None:
        if not seen:  # the run before removes its folder between opening and locking
            seen.extend(here.iterdir())
            shutil.rmtree(seen[0])
        plain(*given)

    monkeypatch.setattr(fcntl, "flock", late)
    with _held() as run:
        monkeypatch.setattr(fcntl, "flock", plain)
        assert run.folder.resolve() == seen[0].resolve()
        assert (run.folder / checkpoint.LOCK).read_text() == str(os.getpid())
        with (run.folder / checkpoint.LOCK).open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_of_several_processes_the_first_alone_has_checkpoints(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "broadcast", lambda _self, key: key)
    with _held(replace(CPU, rank=1, world=2)) as run:
        assert run is None
    assert not here.exists() or list(here.iterdir()) == []


def test_processes_that_train_together_from_other_inputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "broadcast", lambda _self, key: f"not {key}")
    with pytest.raises(UserError, match="differ in code, parameters, data"), _held(replace(CPU, rank=1, world=2)):
        pytest.fail("it began")


def test_shards_count_by_their_manifest_which_has_their_sums(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_split(folder, *synthetic(20))
    key = run_key({}, {}, {"data": folder})
    (folder / "shard-000000.tar").write_bytes(b"something else")  # which reading refuses
    assert run_key({}, {}, {"data": folder}) == key
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert run_key({}, {}, {"data": folder}) != key
