"""A hundred folders of own images of an enemy: each is refused in one sentence, or becomes shards of all its images."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from hostile import Files, bytes_like, fuzzed, refusal, written
from refine.download.download import write_splits
from refine.download.source import Source, Splits
from refine.shards.format.foreign import FORMATS
from refine.shards.reading.reader import read_split
from refine.sources import folder as own
from refine.sources import unlabeled
from support import synthetic

OWN = Path("data/own/images")
OUT = Path("data/raw")
CLASSES = ("cat", "dog")
SOURCE = Source(mirror=None, own_images=OWN, cache=Path("nowhere"))


@pytest.fixture(scope="module")
def healthy() -> Files:
    """Two classes in two splits, an image of every format in each."""
    images = synthetic(4 * len(FORMATS), side=20)[0].permute(0, 2, 3, 1).contiguous().numpy()
    pictures = iter(images)
    files = Files()
    for split in ("train", "test"):
        for name in CLASSES:
            for form in FORMATS:
                buffer = io.BytesIO()
                Image.fromarray(next(pictures)).save(buffer, form)
                files[f"{split}/{name}/{form}.bin"] = buffer.getvalue()
    return files


@fuzzed(100)
def test_a_folder_of_images_is_refused_or_becomes_shards(
    random: Random, healthy: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = random.choice((_squashed, _cropped, _unlabeled))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("data", ignore_errors=True)
    files = Files(healthy)
    name = random.choice(sorted(files))
    harm = random.choice(("head", "head", "head", "anywhere", "anywhere", "place", "place"))
    if harm != "place":
        files[name] = bytes_like(random, files[name], places=64 if harm == "head" else 2**30)
    written(OWN, files)
    if harm == "place":
        _disturb(random, OWN / name)
    if refusal(lambda: _download(how()), OWN) is not None:
        assert not list(OUT.rglob("*")) or not OUT.exists()
    else:
        count = sum(path.is_file() and not path.name.startswith(".") for path in OWN.rglob("*"))
        assert sum(len(read_split(OUT / split).keys) for split in ("train", "test")) == count


def _download(splits: Splits) -> None:
    write_splits(splits, "a source", OUT / "train", OUT / "test", samples_per_shard=8)


def _squashed() -> Splits:
    return own.open_source(own.Params(side=16), SOURCE)


def _cropped() -> Splits:
    return own.open_source(own.Params(side=16, fit="crop", resize=18), SOURCE)


def _unlabeled() -> Splits:
    return unlabeled.open_source(unlabeled.Params(side=16), SOURCE)


def _disturb(random: Random, path: Path) -> None:
    """Puts something else in the place of an image, or beside it, or of its class."""
    change = random.choice(
        ("link", "loop", "folder link", "pipe", "subfolder", "name", "beside", "class", "hidden", "gone")
    )
    if change == "link":
        path.unlink()
        path.symlink_to(random.choice(("nowhere", "/dev/zero", "/proc/self/mem", path.parent.absolute())))
    elif change == "loop":
        (path.parent / "loop").symlink_to("loop")
    elif change == "folder link":
        kept = Path("data/kept")
        path.parent.rename(kept)
        path.parent.symlink_to(kept.absolute())
    elif change == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif change == "subfolder":
        (path.parent / "more").mkdir()
    elif change == "name":
        path.rename(path.parent / os.fsdecode(random.choice((b"\xff.png", b"a\nb", b"\xed\xa0\x80", b" ", b"x" * 255))))
    elif change == "beside":
        path.rename(path.parent.parent / path.name)
    elif change == "class":
        path.parent.rename(path.parent.parent / random.choice(("ant", "\udcff", "x" * 255)))
    elif change == "hidden":
        path.parent.rename(path.parent.parent / ".cat")
    else:
        shutil.rmtree(path.parent.parent if random.random() < 0.5 else path.parent)
