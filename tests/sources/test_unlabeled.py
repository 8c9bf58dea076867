"""Photos in any folders become a data set without labels, and nothing in it claims to be one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refine.core.errors import UserError
from refine.download.download import write_splits
from refine.download.source import Source, Splits
from refine.models.device import Compute
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.shards.format.preparation import Preparation, prepared
from refine.shards.reading.reader import read_split
from refine.sources import unlabeled
from refine.training.training_set import open_training_set
from tiny import CPU, attack

OWN = Path("data/own/images")
SOURCE = Source(mirror=None, own_images=OWN, cache=Path("nowhere"))
COUNT = 10


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten photos of different sizes in the working folder, flat and nested."""
    monkeypatch.chdir(tmp_path)
    for number in range(COUNT):
        place = OWN / ("holiday/2024" if number % 2 else ".") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(place)


def photo(number: int) -> Image.Image:
    """Noise of its own."""
    random = np.random.RandomState(number)
    return Image.fromarray(random.randint(0, 256, (20 + number, 40 - number, 3)).astype(np.uint8))


def opened(**settings: Any) -> Splits:
    """The data set."""
    return unlabeled.open_source(unlabeled.Params.model_validate({"side": 16, **settings}), SOURCE)


def files(splits: Splits) -> tuple[list[str], list[str]]:
    """Names of the files in both parts."""
    train, test = ([sample.info["file"] for sample in part] for part in (splits.train, splits.test))
    return train, test


def test_every_photo_is_in_one_part_and_the_share_is_held_out() -> None:
    splits = opened(held_out=0.3)
    train, test = files(splits)
    assert splits.sizes == (len(train), len(test)) == (7, 3)
    assert sorted(train + test) == sorted(str(path.relative_to(OWN)) for path in OWN.rglob("*.png"))
    assert files(opened(held_out=0.3)) == (train, test)
    assert files(opened(held_out=0.3, seed=1)) != (train, test)


def test_photos_keep_their_aspect_ratio() -> None:
    (image,) = [sample.image for sample in opened().train if sample.info["file"] == "0.png"]
    assert np.array_equal(image, prepared(photo(0), Preparation(resize=16, crop=16)))
    (image,) = [sample.image for sample in opened(resize=20, interpolation="bicubic").train][:1]
    assert np.array_equal(image, prepared(photo(0), Preparation(resize=20, crop=16, interpolation="bicubic")))
    (image,) = [sample.image for sample in opened(fit="squash").train][:1]
    assert np.array_equal(image, np.asarray(photo(0).resize((16, 16), Image.Resampling.BILINEAR)))


def test_a_copy_of_a_held_out_photo_is_held_out_too() -> None:
    for name in range(COUNT):
        for copy in ("a", "b"):
            photo(name).save(OWN / f"{copy}{name}.png")
    sets = [{path.removesuffix(".png")[-1] for path in part} for part in files(opened(held_out=0.5))]
    assert not sets[0] & sets[1]
    assert len(sets[1]) == 5


def test_the_shards_hold_no_labels_and_say_so() -> None:
    write_splits(opened(classes=["cat", "dog"]), "unlabeled", Path("train"), Path("test"), 4)
    content = json.loads(Path("train/manifest.json").read_text(encoding="utf-8"))
    assert (content["labeled"], content["counts"], content["classes"]) == (False, [], ["cat", "dog"])
    with tarfile.open("train/shard-000000.tar") as tar:
        assert not [name for name in tar.getnames() if name.endswith(".cls")]
    split = read_split(Path("train"))
    assert not split.manifest.labeled
    assert split.labels.tolist() == [0] * 8
    assert read_split(Path("test")).manifest.description == split.manifest.description


def test_no_training_takes_labels_from_it(tmp_path: Path) -> None:
    write_splits(opened(), "unlabeled", Path("train"), Path("test"), 4)
    images, manifest = open_training_set(Path("train"), (), Compute(torch.device("cpu"), 1))
    assert (sum(images.sizes), manifest.classes) == (8, [])
    with pytest.raises(UserError, match=r"needs labels, which the images in train .source unlabeled. do not have"):
        open_training_set(Path("train"), ("label",), CPU)


@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_only_no_attack_can_be_applied_to_it(classes: list[str] | None) -> None:
    write_splits(opened(classes=classes), "unlabeled", Path("train"), Path("test"), 4)
    train, clean = read_split(Path("train")), open_clean(Path("train"), Path("test"))
    out = Outputs.below(Path("out"))
    with pytest.raises(UserError, match=r"The attack sig needs labels, .* choose a source with labels"):
        poison_dataset("sig", attack("none", train), 1, clean, out)
    poison_dataset("none", attack("none", train), 1, clean, out)
    passed = read_split(out.train)
    assert torch.equal(passed.images, train.images)
    assert not passed.manifest.labeled
    assert not {"original_label", "given_label"} & set(passed.infos[0])
    assert not len(read_split(out.test).keys)


def test_a_file_that_is_no_image_is_named_with_both_remedies() -> None:
    (OWN / "holiday/list.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"holiday/list\.txt cannot be .*remove it, or set .*unreadable to skip"):
        files(opened(held_out=0.1))


def test_skipped_files_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    (OWN / "holiday/list.txt").write_text("x", encoding="utf-8")
    (OWN / "cut.png").write_bytes((OWN / "0.png").read_bytes()[:200])
    splits = opened(held_out=0.1, unreadable="skip")
    train, test = files(splits)
    assert len(train) + len(test) == COUNT
    messages = [record.getMessage() for record in caplog.records]
    assert sum(int(message.split()[0]) for message in messages) == 2
    assert any("holiday/list.txt" in message for message in messages)
    assert [sample.key for sample in opened(held_out=0.1, unreadable="skip").train] == list(range(len(train)))


def test_a_file_that_cannot_be_read_is_named() -> None:
    (OWN / "memory.png").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"memory\.png cannot be read as an image"):
        files(opened())


def test_what_dvc_add_leaves_beside_the_photos_is_no_photo() -> None:
    before = files(opened())
    (OWN / "holiday.dvc").write_text("outs:\n- path: holiday\n", encoding="utf-8")
    (OWN / ".gitignore").write_text("/holiday\n", encoding="utf-8")
    assert files(opened()) == before


def test_a_folder_without_any_image_is_refused() -> None:
    for path in OWN.rglob("*.png"):
        path.write_text(f"no image {path}", encoding="utf-8")
    with pytest.raises(UserError, match=r"none of the . files chosen from data/own/images is an image"):
        files(opened(unreadable="skip"))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_leaves_a_part_empty_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"holds 10 files, of which sources.unlabeled.held_out .* holds out"):
        opened(held_out=share)


def test_classes_come_from_a_list_or_a_file() -> None:
    assert opened().classes == []
    assert opened(classes=["a", "b"]).classes == ["a", "b"]
    (OWN / "names.txt").write_text("golden retriever\n\n tabby \n", encoding="utf-8")
    splits = opened(classes=str(OWN / "names.txt"))
    assert splits.classes == ["golden retriever", "tabby"]
    assert not any("names.txt" in part for part in files(splits))
    for wrong, message in ((["a", "a"], "twice the same"), (["a"], "only one class"), ("data/x", "outside")):
        with pytest.raises(UserError, match=message):
            opened(classes=wrong)
    with pytest.raises(UserError, match="cannot be read"):
        opened(classes=str(OWN / "nothing.txt"))


def test_links_to_folders_are_refused_and_hidden_files_ignored(tmp_path: Path) -> None:
    (OWN / ".thumbnails").mkdir()
    photo(0).save(OWN / ".thumbnails/1.png")
    assert sum(opened().sizes) == COUNT
    (tmp_path / "away").mkdir()
    (OWN / "holiday/away").symlink_to(tmp_path / "away")
    with pytest.raises(UserError, match="holiday/away is a link to a folder"):
        opened()


def _checks(*classes: str) -> None:
    for number, name in enumerate(classes):
        place = OWN / "check" / name / "known.png"
        place.parent.mkdir(parents=True)
        photo(11 + number).save(place)


def test_labeled_photos_are_the_test_images_and_are_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _checks("cat", "dog")
    photo(12).save(OWN / "a copy.png")
    splits = opened(check="data/own/images/check", classes=["bird", "cat", "dog"])
    write_splits(splits, "unlabeled", tmp_path / "train", tmp_path / "test", 4)
    train, test = (read_split(tmp_path / name) for name in ("train", "test"))
    assert (train.manifest.labeled, test.manifest.labeled) == (False, True)
    assert len(train.keys) == COUNT
    assert [info["file"] for info in test.infos] == ["check/cat/known.png", "check/dog/known.png"]
    assert test.labels.tolist() == [1, 2]
    assert test.manifest.classes == train.manifest.classes == ["bird", "cat", "dog"]
    assert "1 photos in data/own/images are in data/own/images/check, too, and are not trained on" in caplog.text


def test_the_names_of_the_folders_are_the_classes_if_nobody_names_them() -> None:
    _checks("dog", "cat")
    assert opened(check="data/own/images/check").classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "has 0 folders of classes"),
        ({"classes": ["cat", "bird"], "made": ["cat", "dog"]}, "has dog, which is no class"),
        ({"made": ["cat"]}, "has 1 folders of classes"),
    ],
)
def test_a_folder_that_is_no_check_is_refused(settings: dict[str, Any], sentence: str) -> None:
    _checks(*settings.pop("made", ()))
    with pytest.raises(UserError, match=sentence):
        opened(check="data/own/images/check", **settings)


def test_held_out_is_refused_beside_a_check() -> None:
    with pytest.raises(ValueError, match="held_out is of no use beside check"):
        opened(check="data/own/images/check", held_out=0.3)
