"""Parts of data sets in a mirror: every file is compared with a list that is known by its own sum."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refine.core.errors import UserError
from refine.core.registry import SOURCES, component
from refine.download.source import Source, Splits
from refine.sources import gtsrb_subset, imagenette_subset

PLACES = {
    "gtsrb_subset": ("train/00/00000_00000.png", "train/07/00001_00002.png", "test/07/00003.png"),
    "imagenette_subset": ("train/n01440764/a.JPEG", "train/n03888257/b.JPEG", "val/n03888257/c.JPEG"),
}


def opened(name: str, mirror: Path | None, **settings: Any) -> Splits:
    """The data set."""
    module = component(SOURCES, name, "a test")
    source = Source(mirror and str(mirror), Path("own"), Path("cache"))
    splits: Splits = module.open_source(module.Params.model_validate(settings), source)
    return splits


@pytest.fixture(params=PLACES)
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A small folder of the same layout, whose list is known."""
    name = str(request.param)
    module = component(SOURCES, name, "a test")
    lines = []
    for number, place in enumerate(PLACES[name]):
        path = tmp_path / module.FOLDER / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(path)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {place}\n")
    listed = tmp_path / module.FOLDER / "SHA256SUMS"
    listed.write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(listed.read_bytes()).hexdigest())
    return name, tmp_path / module.FOLDER


def test_files_are_read_as_listed(small: tuple[str, Path]) -> None:
    splits = opened(small[0], small[1].parent)
    train, test = list(splits.train), list(splits.test)
    assert [sample.info["file"] for sample in (*train, *test)] == list(PLACES[small[0]])
    last = len(splits.classes) - 1 if small[0] == "imagenette_subset" else 7
    assert [sample.label for sample in (*train, *test)] == [0, last, last]
    assert splits.sizes == (2, 1)


def test_changed_and_missing_files_are_named(small: tuple[str, Path]) -> None:
    name, folder = small
    path = folder / PLACES[name][1]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="is not the file that SHA256SUMS lists"):
        list(opened(name, folder.parent).train)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot be read .*complete the mirror"):
        list(opened(name, folder.parent).train)
    (folder / "SHA256SUMS").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="another list than the known one"):
        opened(name, folder.parent)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="SHA256SUMS is missing; set REFINE_MIRROR"):
        opened(name, folder.parent)
    with pytest.raises(UserError, match="not published; set REFINE_MIRROR"):
        opened(name, None)


def test_whole_tracks_of_every_class_are_held_out() -> None:
    names = [f"train/{c:02}/{t:05}_{f:05}.png" for c in range(3) for t in range(4 + c) for f in range(7)]
    train, test = gtsrb_subset.by_track(names, 0)
    assert sorted(train + test) == names
    tracks = [{name.rpartition("_")[0] for name in part} for part in (train, test)]
    assert not tracks[0] & tracks[1]
    assert Counter(track.split("/")[1] for track in tracks[1]) == {"00": 1, "01": 1, "02": 1}
    assert gtsrb_subset.by_track(names, 0) == (train, test)
    assert gtsrb_subset.by_track(names, 1) != (train, test)
    alone = gtsrb_subset.by_track(names[:7], 0)
    assert alone == (names[:7], [])


def test_the_real_signs_are_split_by_track(datasets: Path) -> None:
    if not (datasets / gtsrb_subset.FOLDER).is_dir():
        pytest.skip(f"the mirror holds no {gtsrb_subset.FOLDER}")
    assert opened("gtsrb_subset", datasets).sizes == (9803, 4210)
    splits = opened("gtsrb_subset", datasets, part="dev")
    assert sum(splits.sizes) == 9803
    assert 0.1 < splits.sizes[1] / 9803 < 0.2
    test = list(splits.test)
    assert {sample.label for sample in test} == set(range(43))


def test_the_real_photographs_are_read(datasets: Path) -> None:
    if not (datasets / imagenette_subset.FOLDER).is_dir():
        pytest.skip(f"the mirror holds no {imagenette_subset.FOLDER}")
    splits = opened("imagenette_subset", datasets, side=32)
    assert splits.sizes == (1000, 400)
    assert Counter(sample.label for sample in splits.test) == dict.fromkeys(range(10), 40)
