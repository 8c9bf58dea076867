"""A poisoned training set is the changes to the clean one, and is read as if it were whole."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import refine
from refine.core.errors import UserError
from refine.core.files import sha256_of, write_json
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.shards.format.manifest import NAME, Overlay, Shard
from refine.shards.reading.folder import complete, described
from refine.shards.reading.held_out import of_attacker
from refine.shards.reading.reader import Shards, Split, read_split
from refine.shards.reading.shard import Chunk
from refine.shards.reading.stored import open_split
from support import synthetic, write_split
from tiny import attack, files_of, raw

HELD_OUT = 0.2
CLEAN, POISONED = "raw/train", "poisoned/train"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`raw` of 60 training images in shards of 8, and `poisoned`: 15 of the attacker's 48 have a patch."""
    home = tmp_path_factory.mktemp("made")
    train, _ = raw(home / "raw")
    clean = open_clean(home / "raw/train", home / "raw/test", HELD_OUT)
    outputs = Outputs.below(home / "poisoned")
    poison_dataset("badnets", attack("badnets", train, rate=15 / 48), 1, clean, outputs)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(made, tmp_path / "home")


def _expected(home: Path) -> tuple[Split, torch.Tensor]:
    """The clean images that the attacker has, and which of them are poisoned."""
    clean = read_split(home / "raw/train")
    own = clean.subset(of_attacker(60, HELD_OUT))
    return own, torch.isin(own.keys, _own_keys(home))


def _own_keys(home: Path) -> torch.Tensor:
    """The keys in the names of the files on the disk."""
    names: list[str] = []
    for shard in (home / POISONED).glob("*.tar"):
        with tarfile.open(shard) as file:
            names += file.getnames()
    return torch.tensor(sorted({int(name.partition(".")[0]) for name in names}))


def test_only_what_changes_is_on_the_disk(made: Path) -> None:
    assert len(_own_keys(made)) == 15
    whole, changes = (sum(path.stat().st_size for path in (made / name).glob("*.tar")) for name in (CLEAN, POISONED))
    assert changes < whole / 2


def test_it_is_read_as_a_whole(made: Path) -> None:
    own, poisoned = _expected(made)
    read = read_split(made / "poisoned/train")
    assert torch.equal(read.keys, own.keys)
    assert torch.equal(read.flags("poisoned"), poisoned)
    assert not read.flags("cover").any()
    assert torch.equal(read.images[~poisoned], own.images[~poisoned])
    assert torch.equal(read.labels, own.labels.masked_fill(poisoned, 0))
    for before, after in zip(own.infos, read.infos, strict=True):
        assert before.items() <= after.items()
    for label, info in zip(own.labels.tolist(), read.infos, strict=True):
        assert info["original_label"] == label
        assert info["given_label"] == (0 if info["poisoned"] else label)
    only = read_split(made / "poisoned/train", only_images=True)
    assert torch.equal(only.images, read.images)
    assert (len(only.labels), only.infos) == (0, [])


def test_its_manifest_is_that_of_the_result(made: Path) -> None:
    manifest, read = complete(made / "poisoned/train"), read_split(made / "poisoned/train")
    assert manifest.samples == 48
    assert manifest.counts == read.labels.bincount(minlength=3).tolist()
    assert [shard.samples for shard in manifest.shards] == [len(chunk.keys) for chunk in Shards(made / POISONED)]
    assert manifest.description == complete(made / "raw/train").description


@pytest.mark.parametrize("name", ["raw/train", "poisoned/train"])
def test_images_that_stay_on_the_disk_are_the_same(made: Path, name: str) -> None:
    stored, read = open_split(made / name), read_split(made / name)
    assert torch.equal(stored.keys, read.keys)
    assert torch.equal(stored.labels, read.labels)
    count = len(read.keys)
    assert len(stored.images) == count
    places = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    for some in (places, places[:3], places[:1].repeat(4), places[:0]):
        assert torch.equal(stored.images[some], read.images[some])
    odd = read.keys % 2 == 1
    assert torch.equal(stored.subset(odd).images[torch.arange(int(odd.sum()))], read.images[odd])
    assert torch.equal(stored.subset(odd).subset(read.labels[odd] == 1).keys, read.keys[odd][read.labels[odd] == 1])
    for size in (1, 7, 8, 100):
        parts = list(stored.images.batches(size))
        assert {len(part) for part in parts[:-1]} <= {size}
        assert torch.equal(torch.cat(parts), read.images)


def test_no_more_than_one_shard_is_read_at_a_time(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = open_split(made / "raw/train").images
    store = inner._store

    def noted(shard: Shard, *rest: Any) -> Chunk:
        read.append(shard.name)
        return type(store).read(store, shard, *rest)

    monkeypatch.setattr(store, "read", noted)
    assert len(inner[torch.tensor([59, 0, 1])]) == 3
    assert read == ["shard-000000.tar", "shard-000007.tar"]


def test_the_copy_needs_no_other_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "materialize", str(home / "poisoned/train"), str(home / "whole"))
    assert (ended.status, ended.out) == (0, f"{home}/whole holds 48 samples in 6 shards\n")
    before = read_split(home / "poisoned/train")
    shutil.rmtree(home / "raw")
    after = read_split(home / "whole")
    assert torch.equal(after.images, before.images)
    assert torch.equal(after.labels, before.labels)
    assert after.infos == before.infos
    again = refine(capsys, "materialize", str(home / "whole"), str(home / "whole"))
    assert (again.status, again.out) == (1, "")
    assert "is there already; name another folder" in again.err


def test_it_is_the_same_folder_wherever_both_lie(home: Path, made: Path) -> None:
    moved = home.rename(home.parent / "moved")
    assert torch.equal(read_split(moved / "poisoned/train").images, read_split(made / "poisoned/train").images)


# -- damage


def _no_base(home: Path) -> None:
    shutil.rmtree(home / "raw")


def _another_base(home: Path) -> None:
    shutil.rmtree(home / "raw/train")
    write_split(home / "raw/train", *synthetic(60, 16, 3, seed=5))


def _a_shard_of_the_base_is_lost(home: Path) -> None:
    (home / "raw/train/shard-000002.tar").unlink()


def _own_shard_is_lost(home: Path) -> None:
    min((home / "poisoned/train").glob("*.tar")).unlink()


def _changed(**changes: Any) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        path = home / "poisoned/train" / NAME
        write_json(path, {**json.loads(path.read_text()), **changes})

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_base, "holds the changes to .*raw/train, which is missing; run `dvc repro`"),
        (_another_base, "holds the changes to .*raw/train, which is another one now; run `dvc repro`"),
        (_a_shard_of_the_base_is_lost, r"raw/train/shard-000002\.tar is missing"),
        (_own_shard_is_lost, r"poisoned/train/shard-00000\d\.tar is missing"),
        (_changed(held_out=0.5), "sizes: they do not follow from held_out 0.5"),
        (_changed(owner="defender"), "sizes: they do not follow from held_out 0.2 and owner defender"),
        (_changed(owner="nobody"), "owner"),
        (_changed(held_out=2.0), "held_out"),
        (_changed(sizes=[8] * 7), "its shards are not those of its base"),
        (_changed(sizes=[9] * 8), "it has more samples than its base"),
        (_changed(sizes=[0] * 8), "it changes more samples than there are"),
        (_changed(counts=[48, 0]), "its classes, sides or counts are not those of its base"),
        (_changed(side=17), "its classes, sides or counts are not those of its base"),
        (_changed(base={"folder": "/etc", "sha256": "0" * 64}), "base.folder"),
        (_changed(base={"folder": "../../raw/train", "sha256": "0" * 64}), "is another one now"),
        (_changed(format_version=1), "format_version"),
    ],
    ids=lambda value: "" if callable(value) else value[-30:],
)
def test_what_does_not_fit_is_refused_in_a_sentence(home: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(home)
    with pytest.raises(UserError, match=said) as refused:
        read_split(home / "poisoned/train")
    assert "\n" not in str(refused.value)


def test_changes_to_changes_are_refused(home: Path) -> None:
    second = shutil.copytree(home / "poisoned/train", home / "poisoned/second")
    sha256 = sha256_of(home / "poisoned/train" / NAME)
    content = json.loads((second / NAME).read_text())
    write_json(second / NAME, {**content, "base": {"folder": "../train", "sha256": sha256}})
    with pytest.raises(UserError, match="its base is an overlay itself"):
        read_split(second)


def test_a_changed_sample_that_the_base_does_not_have_is_refused(home: Path) -> None:
    folder = home / "poisoned/train"
    overlay = described(folder)
    assert isinstance(overlay, Overlay)
    first, second = overlay.shards[:2]
    swapped = [first.model_copy(update={"samples": second.samples, "sha256": second.sha256}), *overlay.shards[2:]]
    shutil.copy(folder / second.name, folder / first.name)
    (folder / second.name).unlink()
    overlay.model_copy(update={"shards": swapped}).write(folder)
    with pytest.raises(UserError, match="changes a sample that its base does not have, or that is left out"):
        read_split(folder)


def test_labels_that_do_not_match_the_counts_are_refused(home: Path) -> None:
    _changed(counts=[20, 14, 14])(home)
    for read in (read_split, open_split):
        with pytest.raises(UserError, match=r"the labels in .* differ from the counts in its manifest"):
            read(home / "poisoned/train")


def test_samples_out_of_order_are_refused_where_they_stay_on_the_disk(home: Path) -> None:
    folder = home / "raw/train"
    content = json.loads((folder / NAME).read_text())
    content["shards"][0], content["shards"][1] = content["shards"][1], content["shards"][0]
    write_json(folder / NAME, content)
    with pytest.raises(UserError, match="are not in the order of their keys"):
        open_split(folder)


def test_files_of_the_clean_set_are_only_read(made: Path, tmp_path: Path) -> None:
    before = files_of(made / "raw")
    clean = open_clean(made / "raw/train", made / "raw/test")
    outputs = Outputs.below(tmp_path)
    poison_dataset("blended", attack("blended", read_split(made / "raw/train"), rate=0.5), 1, clean, outputs)
    assert files_of(made / "raw") == before
