"""The user's own copies of ImageNet and Tiny-ImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refine.core.errors import UserError
from refine.download.source import Source, Splits
from refine.sources import imagenet50, tiny_imagenet

OWN = Path("data/own/images")
SOURCE = Source(mirror=None, own_images=OWN, cache=Path("nowhere"))
WNIDS = ["n01440764", "n02012849", "n03126707"]


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both data sets in the working folder, with three classes of four training images."""
    monkeypatch.chdir(tmp_path)
    tiny = OWN / "tiny-imagenet-200"
    for wnid in WNIDS:
        for number in range(4):
            save(OWN / f"imagenet/train/{wnid}/{number}.JPEG", 40)
            save(tiny / f"train/{wnid}/images/{wnid}_{number}.JPEG", 64)
    for number in range(2):
        save(tiny / f"val/images/val_{number}.JPEG", 64)
    rows = f"val_0.JPEG\t{WNIDS[2]}\t0\t0\t9\t9\nval_1.JPEG\t{WNIDS[0]}\t0\t0\t9\t9\n"
    (tiny / "val/val_annotations.txt").write_text(rows, encoding="utf-8")
    (tiny / "words.txt").write_text(f"n00001740\tentity\n{WNIDS[0]}\ttench, Tinca tinca\n", encoding="utf-8")
    table = f"{WNIDS[0]} tench, Tinca tinca\n{WNIDS[1]} crane\n{WNIDS[2]} crane\n"
    (OWN / "imagenet/LOC_synset_mapping.txt").write_text(table, encoding="utf-8")


def save(path: Path, side: int) -> None:
    """Writes an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(side).randint(0, 256, (side, side, 3)).astype(np.uint8)).save(path, "JPEG")


def fifty(**settings: Any) -> Splits:
    """Three classes of ImageNet."""
    few = {"side": 16, "classes": WNIDS, "train_per_class": 2, "test_per_class": 1, **settings}
    return imagenet50.open_source(imagenet50.Params.model_validate(few), SOURCE)


def test_tiny_imagenet_is_read_as_it_is_unpacked() -> None:
    splits = tiny_imagenet.open_source(tiny_imagenet.Params(), SOURCE)
    train, test = list(splits.train), list(splits.test)
    assert splits.classes == ["tench", *WNIDS[1:]]
    assert splits.sizes == (len(train), len(test)) == (12, 2)
    assert [(sample.label, sample.info["file"]) for sample in test] == [
        (0, "val/images/val_1.JPEG"),
        (2, "val/images/val_0.JPEG"),
    ]
    assert [sample.label for sample in train] == [0] * 4 + [1] * 4 + [2] * 4
    assert train[0].image.shape == (64, 64, 3)


def test_a_damaged_copy_of_tiny_imagenet_is_named() -> None:
    (OWN / "tiny-imagenet-200/val/images/val_1.JPEG").unlink()
    with pytest.raises(UserError, match=r"val_1\.JPEG is missing; complete"):
        list(tiny_imagenet.open_source(tiny_imagenet.Params(), SOURCE).test)
    (OWN / "tiny-imagenet-200/val/val_annotations.txt").write_text("val_0.JPEG\tn99999999\n", encoding="utf-8")
    with pytest.raises(UserError, match="names a class without training images"):
        tiny_imagenet.open_source(tiny_imagenet.Params(), SOURCE)
    with pytest.raises(UserError, match="needs the folders train and val/images"):
        tiny_imagenet.open_source(tiny_imagenet.Params(path=str(OWN)), SOURCE)


def test_classes_of_imagenet_are_drawn_without_overlap() -> None:
    splits = fifty()
    train, test = ([sample.info["file"] for sample in part] for part in (splits.train, splits.test))
    assert splits.sizes == (len(train), len(test)) == (6, 3)
    assert not set(train) & set(test)
    assert splits.classes == ["tench", f"crane ({WNIDS[1]})", f"crane ({WNIDS[2]})"]
    assert [sample.info["file"] for sample in fifty().train] == train
    assert [sample.info["file"] for sample in fifty(seed=1).train] != train
    assert fifty(classes=WNIDS[::-1]).classes[-1] == "tench"


def test_fifty_classes_at_even_steps_are_the_default() -> None:
    for number in range(97):
        save(OWN / f"imagenet/train/n1{number:07d}/0.JPEG", 20)
        save(OWN / f"imagenet/train/n1{number:07d}/1.JPEG", 20)
    splits = fifty(classes=None, train_per_class=1)
    assert len(splits.classes) == 50
    assert splits.classes[:2] == ["tench", "crane"]


def test_fewer_than_fifty_classes_have_to_be_listed() -> None:
    with pytest.raises(UserError, match="holds 3 of 50 class folders; add some, or list"):
        fifty(classes=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_per_class": 4}, "holds 4 of 5 images; add images, or lower"),
        ({"classes": ["n01440764", "n99999999"]}, "n99999999 is missing; copy it there, or change"),
        ({"classes": ["n01440764", "n01440764"]}, "names a class twice"),
        ({"classes": ["n01440764", "../../.."]}, "lies outside"),
    ],
)
def test_classes_that_cannot_be_taken_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fifty(**settings)
