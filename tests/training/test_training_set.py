"""A training set gives the same batches whether it is kept or streamed."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.defending.pseudo_labels import Answered
from refine.models.device import Compute
from refine.shards.reading.reader import Shards, read_split
from refine.shards.writer import Sample, write_shards
from refine.training.batches import Batches
from refine.training.order import Part
from refine.training.training_set import Resident, Streamed, TrainingSet, open_training_set
from support import PROJECT, description, environment, is_one_sentence, run, synthetic

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

CPU = torch.device("cpu")
COMPUTE = Compute(CPU, 1)
FIELDS = ("label", "poisoned", "key")
COUNT, PER_SHARD = 45, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards, the last one shorter; every third sample is poisoned."""
    folder = tmp_path_factory.mktemp("shards")
    images, labels = synthetic(COUNT, side=8)
    samples = (
        Sample(key, image.permute(1, 2, 0).numpy(), int(label), {"poisoned": key % 3 == 0})
        for key, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    write_shards(folder, samples, description(side=8, samples_per_shard=PER_SHARD))
    return folder


def _resident(folder: Path) -> Resident:
    split = read_split(folder)
    fields = (split.labels, split.flags("poisoned").long(), split.keys)
    return Resident(split.images, fields, CPU, [shard.samples for shard in split.manifest.shards])


def _streamed(folder: Path, workers: int = 0) -> Streamed:
    return Streamed(Shards(folder), FIELDS, workers)


def _epoch(of: TrainingSet, buffer: int = 100, seed: int = 1, process: tuple[int, int] = (0, 1)) -> list[list[Tensor]]:
    batches = Batches(of, 6, False, buffer, CPU, process).epoch(seed)
    return [[batch.pixels, *batch.fields, torch.tensor(batch.loss_weight)] for batch in batches]


def _same(first: list[list[Tensor]], second: list[list[Tensor]]) -> bool:
    if [len(batch) for batch in first] != [len(batch) for batch in second]:
        return False
    pairs = zip((t for batch in first for t in batch), (t for batch in second for t in batch), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("buffer", [6, 20, 100])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_kept_and_streamed_give_the_same_batches(folder: Path, workers: int, buffer: int) -> None:
    assert _same(_epoch(_resident(folder), buffer), _epoch(_streamed(folder, workers), buffer))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("buffer", [6, 100])
def test_they_do_for_each_of_several_processes(folder: Path, rank: int, buffer: int) -> None:
    kept, streamed = (_epoch(of, buffer, process=(rank, 2)) for of in (_resident(folder), _streamed(folder, 2)))
    assert _same(kept, streamed)


def test_they_do_for_a_subset(folder: Path) -> None:
    selected = torch.arange(COUNT) % 4 != 1
    for chosen in (selected, selected & (torch.arange(COUNT) > 20)):
        kept, streamed = _resident(folder).subset(chosen), _streamed(folder, 2).subset(chosen)
        assert sum(kept.sizes) == sum(streamed.sizes) == int(chosen.sum())
        assert _same(_epoch(kept, 10), _epoch(streamed, 10))
        again = torch.arange(int(chosen.sum())) % 2 == 0
        assert _same(_epoch(kept.subset(again)), _epoch(streamed.subset(again)))


@pytest.mark.parametrize("kind", [_resident, _streamed])
def test_facts_belong_to_their_images(folder: Path, kind: object) -> None:
    of: TrainingSet = kind(folder)  # type: ignore[operator]
    split = read_split(folder)
    known = {image.numpy().tobytes(): key for key, image in enumerate(split.images.contiguous())}
    seen = []
    for pixels, labels, poisoned, keys, _ in _epoch(of, 10):
        images = (pixels * 255).round().to(torch.uint8).contiguous()
        rows = torch.tensor([known[image.numpy().tobytes()] for image in images])
        assert torch.equal(split.labels[rows], labels)
        assert torch.equal(poisoned, (rows % 3 == 0).long())
        assert torch.equal(keys, rows)
        seen += rows.tolist()
    assert sorted(seen) == list(range(COUNT))


def test_each_epoch_has_its_order_and_the_second_pass_of_one_stream_is_whole(folder: Path) -> None:
    streamed = _streamed(folder, 2)
    first, second, again = (_epoch(streamed, 20, seed) for seed in (1, 2, 1))
    assert _same(first, again)
    assert not _same(first, second)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_epoch_neither_reads_nor_changes_torchs_global_random_state(folder: Path, workers: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = _epoch(_streamed(folder, workers))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert _same(_epoch(_streamed(folder, workers)), first)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_left_before_its_end_leaves_no_process(folder: Path, workers: int) -> None:
    others = multiprocessing.active_children()
    streamed = _streamed(folder, workers)
    whole = _epoch(streamed, 10)
    left = Batches(streamed, 6, False, 10, CPU).epoch(1)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert len(list(Batches(streamed, 6, True, 10, CPU).epoch(1))) == COUNT // 6
    assert set(multiprocessing.active_children()) <= set(others)
    assert _same(_epoch(streamed, 10), whole)


DAMAGED = """
from pathlib import Path
from refine.training.batches import Batches
from refine.models.device import Compute
from refine.shards.reading.reader import Shards
from refine.training.training_set import Streamed
from refine.core.stage import run

def work(_):
    import torch
    streamed = Streamed(Shards(Path("shards")), ("label",), 2)
    for batch in Batches(streamed, 6, False, 10, torch.device("cpu")).epoch(1):
        pass

run("some-stage", work, Path("metrics/runtime"))
"""


def test_a_damaged_shard_ends_a_stage_that_streams_it_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "shards")
    shard = tmp_path / "shards/shard-000003.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    (tmp_path / "stage.py").write_text(DAMAGED)
    result = run(tmp_path, sys.executable, "stage.py", env=environment(PYTHONPATH=str(PROJECT / "src")))
    assert is_one_sentence(result, "shards/shard-000003.tar is damaged", "remove shards and run")
    assert result.stderr.count("\n") == 1


def test_processes_see_other_images_and_together_all(folder: Path) -> None:
    parts = [_epoch(_streamed(folder), 20, process=(rank, 3)) for rank in range(3)]
    images = [pixel.numpy().tobytes() for part in parts for batch in part for pixel in batch[0].contiguous()]
    assert len(images) == len(set(images)) == COUNT


def test_unlabeled_sets_hold_images_and_nothing_else(folder: Path) -> None:
    parts = [Part(0, 0, 3)]
    for of, _ in (open_training_set(folder, (), COMPUTE),):
        (block,) = of.blocks(parts)
        assert len(of.delivered(block, CPU)) == 1


@pytest.mark.parametrize(("memory", "kind"), [(1, Streamed), (2, Resident)])
def test_the_budget_decides_where_images_are_kept(
    tmp_path: Path, memory: int, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(
        tmp_path,
        (Sample(key, image.permute(1, 2, 0).numpy(), 0, {}) for key, image in enumerate(synthetic(600, side=32)[0])),
        description(side=32, samples_per_shard=100),
    )
    with caplog.at_level(logging.INFO):
        of, manifest = open_training_set(tmp_path, ("label",), replace(COMPUTE, machine=Machine(memory=memory)))
    assert isinstance(of, kind)
    assert manifest.samples == sum(of.sizes) == 600
    told = "streamed (REFINE_MEMORY)" if kind is Streamed else "kept on cpu"
    assert caplog.records[-1].getMessage() == f"600 images, 2 MiB: {told}"
    if kind is Streamed:
        with pytest.raises(UserError, match=r"a shuffle buffer of 600 images takes 2 MiB, more than REFINE_MEMORY"):
            Batches(Answered(of, torch.zeros(600, dtype=torch.int64)), 10, False, 65536, CPU)
        assert len(Batches(of, 10, False, 300, CPU)) == 60
