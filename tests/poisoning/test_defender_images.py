"""A defender's images without labels: the data set's, those held out, or another source's; some with the trigger."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refine.core.errors import UserError
from refine.poisoning.poison import Clean, Outputs, open_clean, poison_dataset
from refine.shards.format.manifest import NAME
from refine.shards.reading.held_out import of_defender
from refine.shards.reading.reader import Split, read_split
from refine.shards.reading.stored import open_split
from support import synthetic, write_split
from tiny import attack, files_of, raw

OTHERS = 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`raw` of 60 training images, and `others`: 20 images of two other classes, all of them brighter."""
    home = tmp_path_factory.mktemp("home")
    raw(home / "raw")
    images, labels = synthetic(OTHERS, classes=2, seed=9)
    write_split(home / "others", images // 2 + 100, labels, classes=2)
    return home


def _clean(home: Path, held_out: float = 0.0, others: bool = False, contaminated: float = 0.0) -> Clean:
    folders = home / "raw/train", home / "raw/test"
    return open_clean(*folders, held_out, others=home / "others" if others else None, contaminated=contaminated)


def _poisoned(clean: Clean, out: Path, name: str = "badnets", seed: int = 1) -> Outputs:
    settings = {} if name == "none" else {"rate": 0.2}
    outputs = Outputs.below(out)
    poison_dataset(name, attack(name, read_split(clean.folder), **settings), seed, clean, outputs)
    return outputs


def _differ(one: Split, other: Split) -> torch.Tensor:
    return (one.images != other.images).flatten(1).any(dim=1)


@pytest.mark.parametrize("held_out", [0.0, 0.25])
def test_by_default_they_are_those_of_the_data_set_or_the_held_out_ones(
    home: Path, tmp_path: Path, held_out: float
) -> None:
    outputs = _poisoned(_clean(home, held_out), home / f"plain-{held_out}")
    found, own = read_split(outputs.defender), read_split(home / "raw/train").subset(of_defender(60, held_out))
    assert found.keys.tolist() == own.keys.tolist()
    assert torch.equal(found.images, own.images)
    assert [path.name for path in outputs.defender.iterdir()] == [NAME], "nothing changes, so nothing is written"


@pytest.mark.parametrize("held_out", [0.0, 0.25])
def test_a_share_of_them_has_the_trigger_and_keeps_its_label(home: Path, held_out: float) -> None:
    outputs = _poisoned(_clean(home, held_out, contaminated=0.2), home / f"contaminated-{held_out}")
    found, own = read_split(outputs.defender), read_split(home / "raw/train").subset(of_defender(60, held_out))
    flagged = found.flags("cover")
    assert int(flagged.sum()) == round(0.2 * len(own.keys))
    assert torch.equal(_differ(found, own), flagged)
    assert torch.equal(found.labels, own.labels)
    assert torch.equal(open_split(outputs.defender).images.flags("cover"), flagged)


def test_another_source_s_images_are_written_whole_and_without_labels(home: Path) -> None:
    outputs = _poisoned(_clean(home, others=True, contaminated=0.1), home / "whole")
    found, others = read_split(outputs.defender), read_split(home / "others")
    assert not found.manifest.labeled
    assert found.keys.tolist() == list(range(OTHERS))
    assert torch.equal(_differ(found, others), found.flags("cover"))
    assert int(found.flags("cover").sum()) == 2
    assert not any("file" in info for info in found.infos), "a folder's name may be a label"


def test_what_the_attacker_does_is_the_same_whatever_the_defender_has(home: Path) -> None:
    plain = _poisoned(_clean(home), home / "alone")
    other = _poisoned(_clean(home, others=True, contaminated=0.3), home / "besides")
    for one, two in ((plain.train, other.train), (plain.test, other.test), (plain.attack, other.attack)):
        assert files_of(one) == files_of(two)


def test_the_contaminated_images_are_not_drawn_as_the_poisoned_ones_are(home: Path) -> None:
    outputs = _poisoned(_clean(home, contaminated=0.2), home / "drawn")
    poisoned, contaminated = read_split(outputs.train).flags("poisoned"), read_split(outputs.defender).flags("cover")
    assert 0 < int((poisoned & contaminated).sum()) < 12
    other = _poisoned(_clean(home, contaminated=0.2), home / "drawn-again", seed=2)
    assert not torch.equal(read_split(other.defender).flags("cover"), contaminated)


@pytest.mark.parametrize(
    ("name", "contaminated", "sentence"),
    [
        ("none", 0.5, "the attack none has no trigger .* set poison_dataset.contaminated to 0"),
        ("badnets", 0.001, "poison_dataset.contaminated 0.001 picks none of 60 images; raise it"),
    ],
)
def test_a_share_that_cannot_get_the_trigger_is_refused(
    home: Path, name: str, contaminated: float, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        _poisoned(_clean(home, contaminated=contaminated), home / "refused", name)
    assert not (home / "refused").exists()


def test_images_of_another_size_are_refused(home: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "large", *synthetic(8, side=20))
    clean = open_clean(home / "raw/train", home / "raw/test", others=tmp_path / "large")
    with pytest.raises(UserError, match="have a side of 20 pixels and those of the data set 16; take a source of 16"):
        _poisoned(clean, tmp_path / "out")
