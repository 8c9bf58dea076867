"""The picture of a poisoning, read back from its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from refine.backdoor.attacker_augmentation import Distortion
from refine.backdoor.distort import distort
from refine.pictures.grid import Grid, to_bytes
from refine.poisoning import preview
from refine.poisoning.preview import difference, enlarged
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.reader import Split
from tiny import Poisoned, attack, poisoned, raw

Clean = tuple[Split, Split]
TIMES = "\N{MULTIPLICATION SIGN}"
CUT = f"difference in 6 {TIMES} 6 pixels"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Clean splits: 60 training and 30 test images of three classes."""
    return raw(tmp_path_factory.mktemp("clean") / "raw")


def _made(
    folder: Path, clean: Clean, name: str, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[Poisoned, list[Grid]]:
    """A poisoning, and the grids of its preview before they are drawn."""
    grids: list[Grid] = []
    monkeypatch.setattr(preview, "draw_grids", lambda _, *drawn: grids.extend(drawn))
    made = attack(name, clean[0], **settings)
    return poisoned(folder, name, made, clean), grids


def _titles(grid: Grid) -> list[str]:
    return [title for title, _ in grid.rows]


def _factors(grid: Grid) -> list[str]:
    (row,) = (place for place, title in enumerate(_titles(grid)) if title.startswith("difference"))
    title, captions = grid.captions[row]
    assert title == "brightened"
    return [caption.text for caption in captions]


def test_the_file_has_a_column_for_each_class_that_is_triggered(clean: Clean, tmp_path: Path) -> None:
    result = poisoned(tmp_path, "badnets", attack("badnets", clean[0]), clean)
    with Image.open(result.outputs.preview) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    shown = result.test.images[result.test.labels == 1][0].permute(1, 2, 0)
    assert torch.equal(pixels[36:132, 120:216], shown.repeat_interleave(6, 0).repeat_interleave(6, 1))
    enlarged_difference = pixels[272:368, 120:216]  # of the 6 x 6 pixels in the corner, the patch being 2 x 2
    assert not enlarged_difference[:64].any()
    assert enlarged_difference[64:, 64:].any()


def test_the_first_poisoned_training_images_are_shown_with_both_labels(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, (tests, trained) = _made(tmp_path, clean, "badnets", monkeypatch)
    assert _titles(tests) == ["clean test", "triggered", CUT]
    assert tests.columns == ["class-1", "class-2"]
    assert _titles(trained) == ["clean training", "poisoned", CUT]
    before, after = (images for _, images in trained.rows[:2])
    assert len(before) == len(result.record.poisoned) == len(trained.columns) == 6
    for was, image, title in zip(before, after, trained.columns, strict=True):
        (row,) = (row for row in range(60) if torch.equal(result.train.images[row], was))
        assert row in result.record.poisoned
        assert torch.equal(result.poisoned_train.images[row], image)
        label = int(result.train.labels[row])
        assert title == ("class-0" if label == 0 else f"class-{label} as class-0")


def test_more_images_than_fit_are_left_out(clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, trained) = _made(tmp_path, clean, "badnets", monkeypatch, rate=0.5)
    assert [len(images) for _, images in trained.rows] == [8, 8, 8]


def test_cover_images_are_shown_under_the_label_that_they_keep(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, grids = _made(tmp_path, clean, "wanet", monkeypatch)
    assert [_titles(grid)[1] for grid in grids] == ["triggered", "poisoned", "cover"]
    before, after = (images for _, images in grids[2].rows[:2])
    for was, image, title in zip(before, after, grids[2].columns, strict=True):
        (row,) = (row for row in range(60) if torch.equal(result.train.images[row], was))
        assert row in result.record.cover
        assert torch.equal(result.poisoned_train.images[row], image)
        assert title == f"class-{int(result.train.labels[row])}"


def _turned(images: Tensor, settings: Distortion) -> Tensor:
    return to_bytes(distort(to_pixels(images), settings, Generator().manual_seed(1)))


def test_what_happens_to_images_in_training_is_shown(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, (_, trained, benign) = _made(tmp_path, clean, "physical", monkeypatch)
    assert _titles(trained) == ["clean training", "poisoned", CUT, "seen in training"]
    assert _titles(benign) == ["benign training", "seen in training"]
    acts = Distortion(degrees=10.0, translate=0.1, scale=[0.8, 0.9], flip=0.5, brightness=0.1)
    for stored, seen in ((trained.rows[1][1], trained.rows[3][1]), (benign.rows[0][1], benign.rows[1][1])):
        assert torch.equal(seen, _turned(stored, acts))
        assert not torch.equal(seen, stored)
    for image in benign.rows[0][1]:
        (row,) = (row for row in range(60) if torch.equal(result.train.images[row], image))
        assert row not in result.record.poisoned


def test_what_happens_to_benign_images_alone_is_shown_with_them_alone(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (_, trained, benign) = _made(tmp_path, clean, "batt", monkeypatch)
    assert _titles(trained) == ["clean training", "poisoned", "difference"]
    assert _titles(benign) == ["benign training", "seen in training"]
    assert torch.equal(benign.rows[1][1], _turned(benign.rows[0][1], Distortion(degrees=10.0)))


def test_without_an_attack_it_shows_benign_images(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (benign,) = _made(tmp_path, clean, "none", monkeypatch)
    assert _titles(benign) == ["benign training"]
    assert len(benign.rows[0][1]) == len(benign.columns) == 8


def test_each_difference_is_brightened_by_its_own_integer_factor_which_is_its_caption(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, grids = _made(tmp_path, clean, "blended", monkeypatch)
    for grid in grids:
        before, after, (_, shown) = grid.rows
        factors = _factors(grid)
        assert len(factors) == len(grid.columns)
        for was, now, apart, factor in zip(before[1], after[1], shown, factors, strict=True):
            sign, number = factor.split(" ")
            assert sign == TIMES
            assert int(number) > 5
            assert torch.equal(apart.int(), ((now.int() - was.int()).abs() * int(number)).clamp(max=255))


def _apart(values: Sequence[int]) -> tuple[Tensor, list[int]]:
    clean = torch.full((1, 1, 1, len(values)), 20, dtype=torch.uint8)
    shown, factors = difference(clean, clean + torch.tensor(values, dtype=torch.uint8))
    return shown.flatten(), factors


def test_faint_differences_beside_a_patch_remain_visible() -> None:
    shown, factors = _apart([16] * 95 + [200] * 5)
    assert factors == [15]
    assert shown.tolist() == [240] * 95 + [255] * 5


def test_unchanged_pixels_do_not_affect_the_factor_and_stay_black() -> None:
    shown, factors = _apart([0] * 500 + [3])
    assert factors == [85]
    assert shown.tolist() == [0] * 500 + [255]


def test_a_strong_difference_and_none_are_shown_as_they_are() -> None:
    assert _apart([200, 0])[1] == _apart([0, 0])[1] == [1]
    assert not _apart([0, 0])[0].any()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (15, 15), (8, 3), (1, 14)])
def test_a_small_place_that_differs_is_cut_out_with_two_pixels_around_it(row: int, column: int) -> None:
    apart = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    apart[1, 2, row, column] = 9
    cut = enlarged(apart)
    assert cut.shape == (2, 3, 5, 5)
    assert cut.sum() == 9
    if 2 <= row <= 13 and 2 <= column <= 13:
        assert cut[1, 2, 2, 2] == 9


def test_the_crop_contains_all_differences_and_is_not_made_if_it_is_large() -> None:
    apart = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    assert torch.equal(enlarged(apart), apart)
    apart[0, 0, 5, 5], apart[1, 1, 7, 6] = 1, 2
    assert enlarged(apart).shape[-1] == 7
    assert enlarged(apart).sum() == 3
    apart[1, 1, 9, 6] = 2
    assert torch.equal(enlarged(apart), apart)
