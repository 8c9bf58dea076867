"""A training that is stopped at any moment goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib import util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from gates import Gate, group, hook_into, released
from support import TINY_PARAMS, environment, run, run_stage, tiny_project, write_params
from tiny import files_of

EPOCHS = 4
KILLS = 10
TRAININGS = {"train-backdoor": EPOCHS, "train-refine-encoder": 2, "train-refine": EPOCHS}
OUTPUTS = {"train_backdoor": "models/backdoor", "train_refine": "models/refine"}
MODULES = {"train_backdoor": "refine.backdoor.train", "train_refine": "refine.defenses.refine.training.train"}
PRELOADED = [*MODULES.values(), "refine.architectures.resnet18.network"]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(PRELOADED)
assert all(util.find_spec(name) for name in PRELOADED), "what cannot be preloaded is passed over in silence"


def _params() -> dict[str, Any]:
    """Trainings in which everything that a checkpoint holds matters: momentum, schedule, average, augmentation."""
    content: dict[str, Any] = {**TINY_PARAMS}
    augment = {"shift": 2, "flip": 0.5, "crop_scale": 0.8}
    common = {"epochs": EPOCHS, "batch_size": 16, "average": 0.9, "augment": augment}
    for name in OUTPUTS:
        recipe = {**content[name]["recipe"], **common, "schedule": {"name": "one_cycle"}}
        content[name] = {**content[name], "recipe": recipe}
    content["train_refine"] |= {
        "encoder": {**common, "epochs": TRAININGS["train-refine-encoder"]},
        "pseudo_labels": "once",
    }
    return content


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data sets are poisoned and whose trainings take a second."""
    folder = tiny_project(tmp_path_factory.mktemp("project") / "project")
    write_params(folder, _params())
    for stage in ("download", "poison_dataset"):
        assert run_stage(folder, stage).returncode == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> dict[str, dict[str, str]]:
    """What the trainings leave when nobody disturbs them."""
    for stage in OUTPUTS:
        started = _started(project, stage)
        started.join()
        assert started.exitcode == 0, _said(project)
    told = [f"{training} {epoch}/" for training, epochs in TRAININGS.items() for epoch in range(1, epochs + 1)]
    assert _epochs_told(project) == Counter(told)
    (project / "said.txt").unlink()
    return {stage: files_of(project / output) for stage, output in OUTPUTS.items()}


@dataclass
class Point:
    """A moment inside a training at which the process gets a signal: the n-th call of a function, before or after it.

    Attributes:
        where: the function, as `module:attribute`.
        call: which call of it, from 1.
        after: whether the function has done its work by then.
        number: of the signal.
    """

    where: str
    call: int = 1
    after: bool = False
    number: int = signal.SIGKILL
    calls: int = field(default=0, init=False)

    def set(self) -> None:
        """Lies in wait."""
        module_name, _, path = self.where.partition(":")
        holder: Any = __import__(module_name, fromlist=["_"])
        *parents, name = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent)
        real = getattr(holder, name)

        def watched(*args: Any, **named: Any) -> Any:
            self.calls += 1
            here = self.calls == self.call
            if here and not self.after:
                os.kill(os.getpid(), self.number)
            result = real(*args, **named)
            if here and self.after:
                os.kill(os.getpid(), self.number)
            return result

        setattr(holder, name, watched)


@dataclass
class Change:
    """A moment at which the process kills itself: before it changes what lies on the disk for the n-th time.

    The removal of whole folders does not count: that of the checkpoints has moments of its own.

    Attributes:
        number: of the change, from 1; the process lives where there are fewer.
        seen: how many there were.
    """

    number: int
    seen: int = field(default=0, init=False)

    def set(self) -> None:
        """Lies in wait."""
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        removed = event == "os.remove" and arguments[1] == -1  # by its path, not from an open folder
        if opened or removed or event in ("os.rename", "os.mkdir"):
            self.seen += 1
            if self.seen == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


BEFORE = {"refine.core.files:os.fsync": 2 * TRAININGS["train-refine-encoder"], "refine.training.loop:Run.train": 1}
"""How often the encoder's training calls them before the transform's begins."""
POINTS = {
    "inside a checkpoint's write": Point("refine.core.files:os.fsync", call=3),
    "between a checkpoint's new name and the next step": Point("refine.core.files:os.fsync", call=6, after=True),
    "after the last epoch": Point("refine.training.loop:Run.train", after=True),
    "inside the outputs": Point("{}:write_history"),
    "after the outputs": Point("refine.training.checkpoint:Checkpoints.remove"),
    "inside the removal": Point("refine.training.checkpoint:shutil.rmtree"),
}


def _stage(project: Path, stage: str, point: Point | Change | None) -> None:
    """Runs in a process of its own: the stage's script, as `dvc` runs it."""
    os.chdir(project)
    os.environ["REFINE_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and that is inherited
    for name in [name for name in os.environ if name.startswith("DVC_")]:
        del os.environ[name]
    said = os.open("said.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(said, 2)
    sys.argv = [f"stages/{stage}.py"]
    if point is not None:
        point.set()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        if isinstance(point, Change):
            Path("changes.txt").write_text(str(point.seen), encoding="utf-8")


def _started(project: Path, stage: str, point: Point | Change | None = None) -> BaseProcess:
    process = FORK.Process(target=_stage, args=(project, stage, point))
    process.start()
    return process


def _said(project: Path) -> str:
    path = project / "said.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _epochs_told(project: Path) -> Counter[str]:
    """How often each epoch of each training was told; it is told once it is on the disk."""
    return Counter(re.findall(r"^train-[\w-]+ \d+/", _said(project), re.MULTILINE))


@pytest.fixture
def clean(project: Path) -> Path:
    """The project without the defense, checkpoints and words of earlier runs."""
    for path in (OUTPUTS["train_refine"], ".scratch"):
        shutil.rmtree(project / path, ignore_errors=True)
    (project / "said.txt").unlink(missing_ok=True)
    return project


def _forget(project: Path, stage: str) -> None:
    """As DVC does before it runs a stage."""
    shutil.rmtree(project / OUTPUTS[stage], ignore_errors=True)


def _over(project: Path, stage: str) -> bool:
    """Whether the run had ended when its process was killed on the way out: nothing is left that could go on."""
    return (project / OUTPUTS[stage]).exists() and not list((project / ".scratch").iterdir())


def _ends_alike(project: Path, stage: str, undisturbed: dict[str, dict[str, str]]) -> None:
    assert files_of(project / OUTPUTS[stage]) == undisturbed[stage]
    told = _epochs_told(project)
    assert set(told.values()) == {1}, f"an epoch that was on the disk was trained again: {told}"
    assert list((project / ".scratch").iterdir()) == []


@pytest.mark.parametrize("stage", OUTPUTS)
def test_killed_before_random_changes_of_the_disk_it_ends_as_if_undisturbed(
    undisturbed: dict[str, dict[str, str]], clean: Path, stage: str
) -> None:
    _forget(clean, stage)
    _started(clean, stage, Change(0)).join()
    changes = int((clean / "changes.txt").read_text(encoding="utf-8"))
    moments = random.Random(stage)
    kills = 0
    while kills < KILLS:
        (clean / "said.txt").unlink()
        for attempt in range(10 * KILLS):
            assert attempt < 10 * KILLS - 1, "it does not get on"
            _forget(clean, stage)
            process = _started(clean, stage, Change(moments.randint(1, changes)))
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            if process.exitcode == 0 or _over(clean, stage):
                break
            assert process.exitcode == -signal.SIGKILL, _said(clean)
            assert not (clean / OUTPUTS[stage]).exists() or files_of(clean / OUTPUTS[stage]) == undisturbed[stage]
        _ends_alike(clean, stage, undisturbed)


@pytest.mark.parametrize("stage", OUTPUTS)
@pytest.mark.parametrize("moment", POINTS)
def test_killed_at_a_critical_moment_it_ends_as_if_undisturbed(
    undisturbed: dict[str, dict[str, str]], clean: Path, stage: str, moment: str
) -> None:
    point = POINTS[moment]
    _forget(clean, stage)
    call = point.call + (BEFORE.get(point.where, 0) if stage == "train_refine" else 0)
    killed = _started(clean, stage, Point(point.where.format(MODULES[stage]), call, point.after))
    killed.join()
    assert killed.exitcode == -signal.SIGKILL, f"the moment never came: {_said(clean)}"
    _forget(clean, stage)
    again = _started(clean, stage)
    again.join()
    assert again.exitcode == 0, _said(clean)
    _ends_alike(clean, stage, undisturbed)


def test_ctrl_c_says_what_happened_and_how_to_go_on(undisturbed: dict[str, dict[str, str]], clean: Path) -> None:
    third = Point("refine.training.loop:Run._epoch", call=TRAININGS["train-refine-encoder"] + 3, number=signal.SIGINT)
    process = _started(clean, "train_refine", third)
    process.join()
    assert process.exitcode == 130
    told = f"interrupted after 2 of {EPOCHS} epochs of train-refine; type `dvc repro` to go on"
    assert _said(clean).splitlines()[-1] == f"error: train-refine: {told}"
    again = _started(clean, "train_refine")
    again.join()
    assert "\ntrain-refine goes on after epoch 2" in _said(clean)
    _ends_alike(clean, "train_refine", undisturbed)


def test_a_loss_that_is_not_finite_is_one_sentence(undisturbed: object, clean: Path) -> None:
    params = _params()
    params["train_refine"]["recipe"]["optimizer"] = {"lr": 1e6, "momentum": 0.0}
    params["train_refine"]["recipe"]["schedule"] = {"name": "step", "milestones": []}
    write_params(clean, params)
    try:
        process = _started(clean, "train_refine")
        process.join()
    finally:
        write_params(clean, _params())
    assert process.exitcode == 1
    assert re.search(r"^error: train-refine: the loss became \S+ in step \d+ of epoch \d", _said(clean), re.MULTILINE)
    assert not (clean / "models/refine").exists()


class TestUnderDvc:
    """The same with the real `dvc` around the stage, and signals that reach only some of the processes."""

    @pytest.fixture
    def repository(self, undisturbed: object, clean: Path, tmp_path: Path) -> Path:
        """A DVC repository in which train-refine is next."""
        folder = Path(shutil.copytree(clean, tmp_path / "repository"))
        hook_into(folder)
        for command in (("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "commit", "-q", "-f", "poison-dataset")):
            assert run(folder, *command).returncode == 0
        return folder

    def test_it_goes_on_after_dvc_alone_and_after_all_were_killed(
        self, repository: Path, undisturbed: dict[str, dict[str, str]], tmp_path: Path
    ) -> None:
        repro = ("dvc", "repro", "-s", "train-refine")
        gates = [Gate(tmp_path, rf"/train-refine-\w+/epoch-00000{epoch}\.ckpt") for epoch in (2, 4)]
        with group(repository, *repro, env=environment(**gates[0].variables)) as first, gates[0].reached(first):
            first.terminate()  # DVC alone: the training ends too
            first.wait()
            (lock,) = repository.glob(".scratch/*/lock")
            released(lock)
            _, told = first.communicate()
        with group(repository, *repro, env=environment(**gates[1].variables)) as second, gates[1].reached(second):
            os.killpg(second.pid, signal.SIGKILL)
            released(lock)
            _, more = second.communicate()
        last = run(repository, *repro)
        assert last.returncode == 0, last.stderr
        assert "train-refine goes on after epoch 1" in more
        assert "train-refine goes on after epoch 3" in last.stderr
        epochs = re.findall(r"^(train-[\w-]+ \d+)/", told + more + last.stderr, re.MULTILINE)
        assert epochs == [
            "train-refine-encoder 1",
            "train-refine-encoder 2",
            *(f"train-refine {n}" for n in range(1, 5)),
        ]
        assert list((repository / ".scratch").iterdir()) == []
        assert files_of(repository / "models/refine") == undisturbed["train_refine"]
