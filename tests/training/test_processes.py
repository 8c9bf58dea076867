"""Training in several processes is training in one with the same batch, batch normalization by parts excepted."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch._dynamo.utils import counters

from gates import HOOK, Gate, group, released
from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.backdoor.train import BackdoorTask
from refine.core.errors import UserError
from refine.core.machine import DEFAULTS
from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.training.encoder import EncoderTask
from refine.defenses.refine.training.train import RefineTask
from refine.training import processes
from refine.training.batches import Batch
from refine.training.loop import Run
from refine.training.optimizer import build
from refine.training.processes import Processes
from support import TINY_PARAMS, environment, run, run_stage, synthetic, tiny_project, write_params
from tiny import CPU, backdoor_params, classifier, defense, files_of, refine_params

WORLD = 2
PRELOADED = ["refine.backdoor.train", "refine.defenses.refine.training.train", "refine.architectures.resnet18.network"]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(PRELOADED)
assert all(util.find_spec(name) for name in PRELOADED), "what cannot be preloaded is passed over in silence"

Task = BackdoorTask | EncoderTask | RefineTask


def _task(name: str, world: int = 1, rank: int = 0) -> Task:
    compute = replace(CPU, rank=rank, world=world)
    if name in ("refine", "encoder", "frozen"):
        params = refine_params({"augment": {}, "optimizer": {"lr": 0.01}}, encoder={"augment": {}})
        whole = defense(classifier()).train().to(torch.get_default_dtype())
        answers = PseudoLabels(whole.classifier, params.recipe, False, CPU, "fp32")
        if name == "encoder":
            assert params.encoder is not None
            head = whole.transform.begin(whole.classifier, 3, lambda: torch.zeros(1, 3, 16, 16))
            return EncoderTask(whole, head, [], answers, params.encoder, compute, "fp32")
        if name == "frozen":
            whole.transform.freeze_encoder()
        return RefineTask(whole, [], answers, params, compute, "fp32", keep=[])
    trained = classifier(seed=1).train().requires_grad_(True).to(torch.get_default_dtype())
    recipe = backdoor_params(augment={}, compile=name == "compiled").recipe
    return BackdoorTask(trained, [], recipe, AttackerAugmentation(), compute, "fp32")


def _batch(step: int, part: slice = slice(None), share: float = 1.0, count: int = 12) -> Batch:
    images, labels = synthetic(count, seed=step)
    pixels = (images / 255).to(torch.get_default_dtype()).contiguous(memory_format=torch.channels_last)
    return Batch(pixels[part], (labels[part], torch.zeros_like(labels[part])), share)


def _part(rank: int, world: int, count: int) -> tuple[slice, float]:
    start, stop = count * rank // world, count * (rank + 1) // world
    return slice(start, stop), (stop - start) * world / count


class _InParts(nn.Module):
    """One process that shows a module the parts of a batch one after the other, as several would see them."""

    def __init__(self, module: nn.Module, world: int) -> None:
        super().__init__()
        self.module = module
        self.world = world

    def forward(self, pixels: Tensor) -> Any:
        parts = [_part(rank, self.world, len(pixels))[0] for rank in range(self.world)]
        results = [self.module(pixels[part]) for part in parts]
        if isinstance(results[0], Tensor):
            return torch.cat(results)
        return tuple(torch.cat(column) for column in zip(*results, strict=True))


def _gradients(task: Task, batch: Batch) -> dict[str, Tensor]:
    task.module.train()
    task.step(batch).loss.backward()
    learning = {name: parameter for name, parameter in task.module.named_parameters() if parameter.requires_grad}
    return {name: parameter.grad.clone() for name, parameter in learning.items()}


def _losses(task: Task, batches: list[Batch]) -> list[float]:
    """What training says of each step, weighted as for a mean over the images of all processes."""
    params = {"optimizer": {"lr": 0.002}, "schedule": {"name": "one_cycle"}, "epochs": 1}
    recipe = refine_params(params).recipe
    optimizer, schedule = build(task.module.parameters(), recipe, len(batches))
    task.module.train()
    losses = []
    for batch in batches:
        step = task.step(batch)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(step.terms["loss"].detach()) * batch.loss_weight)
    return losses


def _gradients_of(name: str, rank: int, count: int) -> dict[str, Tensor]:
    torch.set_default_dtype(torch.float64)
    torch.compile = partial(torch.compile, backend="aot_eager")  # what a C++ compiler adds concerns one process alone
    found = _gradients(_task(name, WORLD, rank), _batch(0, *_part(rank, WORLD, count), count=count))
    assert bool(counters["stats"]["unique_graphs"]) == (name == "compiled")
    return found


def _losses_of(name: str, rank: int, count: int) -> list[float]:
    part = _part(rank, WORLD, count)
    return _losses(_task(name, WORLD, rank), [_batch(step, *part, count=count) for step in range(20)])


class _OneBatch:
    """An epoch of a single batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def epoch(self, seed: int) -> Iterator[Batch]:
        del seed
        yield self.batch


def _history_of(name: str, rank: int, count: int) -> dict[str, float]:
    task = _task(name, WORLD, rank)
    task.batches = _OneBatch(_batch(0, *_part(rank, WORLD, count), count=count))
    compute = replace(CPU, rank=rank, world=WORLD)
    (row,) = Run(task, backdoor_params().recipe, "test", 1, compute, None).train()
    return row


def _gathered_of(_: str, rank: int, count: int) -> tuple[Tensor, Tensor]:
    """All rows as this process sees them, and the gradient of a loss of all of them."""
    rows = torch.arange(count * 2.0).view(count, 2)[_part(rank, WORLD, count)[0]].requires_grad_()
    seen = Processes(replace(CPU, rank=rank, world=WORLD)).gathered(rows)
    (seen.pow(3).sum() * seen.sum()).backward()
    assert rows.grad is not None
    return seen.detach(), rows.grad


def _member(work: Callable[[str, int, int], Any], name: str, rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    torch.save(work(name, rank, count), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def _together(work: Callable[[str, int, int], Any], name: str, count: int, folder: Path) -> list[Any]:
    """What each of the processes gets."""
    members = [FORK.Process(target=_member, args=(work, name, rank, count, folder)) for rank in range(WORLD)]
    for member in members:
        member.start()
    for member in members:
        member.join()
    assert [member.exitcode for member in members] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("count", [12, 11])
@pytest.mark.parametrize("name", ["backdoor", "encoder", "refine", "frozen"])
def test_gradients_are_those_of_one_process_with_the_whole_batch(name: str, count: int, tmp_path: Path) -> None:
    parallel = _together(_gradients_of, name, count, tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        alone = _task(name)
        alone._forward = _InParts(alone._forward, WORLD)
        expected = _gradients(alone, _batch(0, count=count))
    finally:
        torch.set_default_dtype(torch.float32)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for gradients in parallel:
        assert gradients.keys() == expected.keys()
        worst = max((gradients[key] - expected[key]).abs().max() for key in expected)
        assert worst / largest <= 1e-9


def test_compiled_networks_have_the_gradients_of_one_process(tmp_path: Path) -> None:
    plain, compiled = (_together(_gradients_of, name, 12, _new(tmp_path / name)) for name in ("backdoor", "compiled"))
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "count"),  # normalizing an encoder's innermost map, one pixel, over five images is chaotic
    [("backdoor", 12), ("backdoor", 11), ("encoder", 12), ("refine", 12), ("refine", 11)],
)
def test_twenty_steps_lose_as_in_one_process(name: str, count: int, tmp_path: Path) -> None:
    parallel = _together(_losses_of, name, count, tmp_path)
    alone = _task(name)
    alone._forward = _InParts(alone._forward, WORLD)
    expected = _losses(alone, [_batch(step, count=count) for step in range(20)])
    assert expected[-1] != pytest.approx(expected[0], rel=0.05)
    assert [sum(pair) / WORLD for pair in zip(*parallel, strict=True)] == pytest.approx(expected, rel=1e-3)


def test_the_history_tells_the_mean_over_the_images_of_all_processes(tmp_path: Path) -> None:
    first, second = _together(_history_of, "backdoor", 11, tmp_path)
    alone = _task("backdoor")
    alone._forward = _InParts(alone._forward, WORLD)
    alone.module.train()
    expected = {name: value.item() for name, value in alone.step(_batch(0, count=11)).terms.items()}
    assert first == second
    assert first == pytest.approx({"epoch": 1, "learning_rate": 0.05, **expected}, rel=1e-5)


def test_gathered_rows_are_those_of_all_and_gradients_stay_with_their_owner(tmp_path: Path) -> None:
    rows = torch.arange(10.0).view(5, 2).requires_grad_()
    (rows.pow(3).sum() * rows.sum()).backward()
    assert rows.grad is not None
    for rank, (seen, gradient) in enumerate(_together(_gathered_of, "", 5, tmp_path)):
        assert torch.equal(seen, rows.detach())
        torch.testing.assert_close(gradient, rows.grad[_part(rank, WORLD, 5)[0]])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages up to train-backdoor have run, the last one in two processes."""
    folder = tiny_project(tmp_path_factory.mktemp("project") / "project")
    tiny = TINY_PARAMS["train_refine"]
    first = {"encoder": {"epochs": 2, "batch_size": 8}, "pseudo_labels": "once"}
    defended = {**tiny, **first, "recipe": {**tiny["recipe"], "epochs": 4}}
    write_params(folder, {**TINY_PARAMS, "train_refine": defended})
    for stage in ("download", "poison_dataset"):
        assert run_stage(folder, stage).returncode == 0
    trained = run_stage(folder, "train_backdoor", REFINE_PROCESSES="2")
    assert trained.returncode == 0, trained.stderr
    return folder


@pytest.fixture(scope="module")
def by_setting(project: Path) -> dict[str, str]:
    """What REFINE_PROCESSES=2 leaves."""
    result = run_stage(project, "train_refine", REFINE_PROCESSES="2")
    assert result.returncode == 0, result.stderr
    assert re.findall(r"^train-refine (\d)/4", result.stderr, re.MULTILINE) == ["1", "2", "3", "4"]
    return files_of(project / "models/refine")


LOSES_ONE = """
import os, sys
from pathlib import Path

def lose(event, arguments):
    if event == "open" and "epoch-000003.ckpt" in str(arguments[0]) and not Path(os.environ["LOST"]).exists():
        Path(os.environ["LOST"]).touch()
        os.kill(os.getpid(), 9)

sys.addaudithook(lose)
"""
"""Kills the first process that writes the checkpoint of the third epoch, once."""


class TestStage:
    """The stage's script under both ways to several processes."""

    def test_torchrun_does_the_same(self, project: Path, by_setting: dict[str, str]) -> None:
        shutil.rmtree(project / "models/refine")
        command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "stages/train_refine.py")
        result = run(project, sys.executable, *command, env=environment(PYTHONPATH="src", PYTHON_EXEC="python"))
        assert result.returncode == 0, result.stderr
        assert files_of(project / "models/refine") == by_setting

    def test_the_runtime_record_tells_the_number_of_processes(self, project: Path, by_setting: object) -> None:
        assert '"processes": 2' in (project / "metrics/runtime/train-refine.json").read_text(encoding="utf-8")

    def test_killed_and_started_again_it_ends_as_if_undisturbed(
        self, project: Path, by_setting: dict[str, str], tmp_path: Path
    ) -> None:
        shutil.rmtree(project / "models/refine")
        gate = Gate(tmp_path, r"/train-refine-\w+/epoch-000003\.ckpt")
        env = environment(PYTHONPATH=f"{HOOK}:src", REFINE_PROCESSES="2", **gate.variables)
        with group(project, sys.executable, "stages/train_refine.py", env=env) as killed, gate.reached(killed):
            os.killpg(killed.pid, signal.SIGKILL)
            released(*project.glob(".scratch/*/lock"))
            killed.communicate()
        assert not (project / "models/refine").exists()
        again = run_stage(project, "train_refine", REFINE_PROCESSES="2")
        assert again.returncode == 0, again.stderr
        assert "train-refine-encoder goes on after epoch 2 of 2" in again.stderr
        assert "train-refine goes on after epoch 2 of 4" in again.stderr
        assert files_of(project / "models/refine") == by_setting

    def test_two_machines_of_which_one_loses_its_process_end_as_if_undisturbed(
        self, project: Path, by_setting: dict[str, str], tmp_path: Path
    ) -> None:
        shutil.rmtree(project / "models/refine")
        (tmp_path / "sitecustomize.py").write_text(LOSES_ONE, encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            meeting = f"127.0.0.1:{free.getsockname()[1]}"
        settings = {
            "REFINE_NODES": "2",
            "REFINE_MEETING": meeting,
            "REFINE_RESTARTS": "1",
            "LOST": str(tmp_path / "lost"),
        }
        env = environment(PYTHONPATH=f"{tmp_path}:src", **settings)
        command = (sys.executable, "stages/train_refine.py")
        with group(project, *command, env=env) as one, group(project, *command, env=env) as other:
            said = [each.communicate()[1] for each in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), said
        assert (tmp_path / "lost").exists()
        assert any("train-refine goes on after epoch 2 of 4" in each for each in said)
        assert files_of(project / "models/refine") == by_setting

    def test_a_batch_that_cannot_be_shared_is_one_sentence(self, project: Path) -> None:
        result = run_stage(project, "train_refine", REFINE_PROCESSES="3")
        assert result.returncode == 1
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert errors == [
            "error: train-refine: train_refine.encoder: a batch of 8 images cannot be shared by 3 processes; "
            "make batch_size a multiple of them"
        ]
        assert "Traceback" not in result.stderr


def test_streamed_images_are_shared_as_those_in_memory_are(tmp_path: Path) -> None:
    folder = tiny_project(tmp_path / "project")
    trained = TINY_PARAMS["train_backdoor"]
    trained = {**trained, "recipe": {**trained["recipe"], "shuffle_buffer": 16}}
    write_params(folder, {**TINY_PARAMS, "sources": {"folder": {"side": 128}}, "train_backdoor": trained})
    for stage in ("download", "poison_dataset"):
        assert run_stage(folder, stage).returncode == 0
    found = []
    for memory, told in (("4096", "kept on cpu"), ("1", "streamed")):
        result = run_stage(folder, "train_backdoor", REFINE_PROCESSES="2", REFINE_MEMORY=memory)
        assert result.returncode == 0, result.stderr
        assert told in result.stderr
        found.append(files_of(folder / "models/backdoor"))
        shutil.rmtree(folder / "models/backdoor")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda", "each process takes a GPU of its own, and there are 1; set REFINE_PROCESSES to 1"),
        ("cuda:1", "REFINE_DEVICE is cuda:1, but each process takes a GPU of its own; set it to cuda"),
    ],
)
def test_processes_that_have_no_gpu_of_their_own_are_refused(
    device: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(processes, "compute", lambda _: replace(CPU, device=torch.device(device)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError) as refused, processes.joined(DEFAULTS):
        pass
    assert str(refused.value) == told
