"""The grid of D-ST and D-BR against an independent, slow reading of the published formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refine.attacks import badnets_grid
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import ready

WHITE = {(29, 31), (30, 30), (31, 29), (31, 31)}
BLACK = {(29, 29), (29, 30), (30, 29), (30, 31), (31, 30)}


def _slowly(image: Tensor) -> Tensor:
    changed = image.clone()
    for channel in range(3):
        for row, column in WHITE:
            changed[channel, row, column] = 255
        for row, column in BLACK:
            changed[channel, row, column] = 0
    return changed


def test_on_32_pixels_it_is_the_published_motif() -> None:
    images, _ = synthetic(6, side=32)
    for image, changed in zip(images, ready("badnets_grid", 32).trigger(images, torch.arange(6)), strict=True):
        assert torch.equal(changed, _slowly(image))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cell=st.integers(1, 8), side=st.integers(24, 40))
def test_enlarged_the_motif_has_nine_even_cells_in_the_corner(cell: int, side: int) -> None:
    images, _ = synthetic(2, side)
    triggered = ready("badnets_grid", side, patch_side=3 * cell).trigger(images, torch.arange(2))
    for row in range(side):
        for column in range(side):
            down, across = (row - side + 3 * cell) // cell, (column - side + 3 * cell) // cell
            if down < 0 or across < 0:
                assert torch.equal(triggered[:, :, row, column], images[:, :, row, column])
            else:
                assert bool((triggered[:, :, row, column] == (255 if down + across in (2, 4) else 0)).all())


@pytest.mark.parametrize(("side", "patch"), [(8, 3), (16, 3), (32, 3), (64, 6), (224, 21)])
def test_the_motif_keeps_its_share_of_the_image_and_never_loses_a_cell(side: int, patch: int) -> None:
    assert ready("badnets_grid", side).tensors["pattern"].shape == (3, patch, patch)


def test_a_tenth_of_the_images_of_other_classes_is_poisoned() -> None:
    labels = torch.arange(50_000) % 10
    rows = ready("badnets_grid", 32, target=3).choose(labels, torch.Generator().manual_seed(1))
    counts = labels[rows.poisoned].bincount(minlength=10).tolist()
    assert len(set(rows.poisoned.tolist())) == 4_500
    assert counts[3] == 0
    assert all(400 < count < 600 for label, count in enumerate(counts) if label != 3)
    assert len(rows.cover) == 0


def test_a_motif_larger_than_the_image_is_refused() -> None:
    badnets_grid.Attack(badnets_grid.Params(patch_side=16), Setting(10, 16))
    with pytest.raises(UserError, match="a patch of 17 pixels does not fit images of 16"):
        badnets_grid.Attack(badnets_grid.Params(patch_side=17), Setting(10, 16))
