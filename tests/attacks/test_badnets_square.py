"""The square of D-ST and D-BR, all-to-all and all-to-one, against a slow reading of the published formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refine.attacks import badnets_square
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import attack, poisoned, raw, ready


def test_on_32_pixels_three_pixels_are_white_one_pixel_from_the_corner() -> None:
    images, _ = synthetic(4, side=32)
    triggered = ready("badnets_square", 32).trigger(images, torch.arange(4))
    for row in range(32):
        for column in range(32):
            if row in (28, 29, 30) and column in (28, 29, 30):
                assert bool((triggered[:, :, row, column] == 255).all())
            else:
                assert torch.equal(triggered[:, :, row, column], images[:, :, row, column])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), side=st.integers(4, 20))
def test_any_square_at_any_distance_is_white_and_nothing_else_changes(data: st.DataObject, side: int) -> None:
    patch = data.draw(st.integers(1, side))
    margin = data.draw(st.integers(0, side - patch))
    images, _ = synthetic(2, side)
    triggered = ready("badnets_square", side, patch_side=patch, margin=margin).trigger(images, torch.arange(2))
    inside = range(side - margin - patch, side - margin)
    for row in range(side):
        for column in range(side):
            white = row in inside and column in inside
            expected = torch.full((2, 3), 255) if white else images[:, :, row, column]
            assert torch.equal(triggered[:, :, row, column].int(), expected.int())


@pytest.mark.parametrize(("side", "patch", "margin"), [(8, 1, 1), (28, 2, 1), (32, 3, 1), (64, 6, 2), (224, 22, 7)])
def test_square_and_margin_keep_their_share_of_the_image(side: int, patch: int, margin: int) -> None:
    made = ready("badnets_square", side)
    assert isinstance(made, badnets_square.Attack)
    assert (made.patch_side, made.margin) == (patch, margin)


def test_class_y_leads_to_y_plus_1_and_the_last_one_to_0(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=100, classes=10)
    result = poisoned(tmp_path / "poisoned", "badnets_square", attack("badnets_square", clean[0]), clean)
    assert len(result.record.poisoned) == 10
    for info in (*result.poisoned_train.infos, *result.triggered_test.infos):
        label = info["original_label"]
        assert info["given_label"] == ((0 if label == 9 else label + 1) if info["poisoned"] else label)
    assert len(result.triggered_test.labels) == len(result.test.labels) == 50


def test_all_to_all_poisons_a_tenth_of_all_images() -> None:
    rows = ready("badnets_square", 32).choose(torch.arange(50_000) % 10, torch.Generator().manual_seed(1))
    assert len(set(rows.poisoned.tolist())) == 5_000


def test_with_a_target_it_is_all_to_one_from_the_other_classes() -> None:
    labels = torch.arange(50_000) % 10
    made = ready("badnets_square", 32, target=4)
    rows = made.choose(labels, torch.Generator().manual_seed(1))
    assert len(rows.poisoned) == 4_500
    assert not (labels[rows.poisoned] == 4).any()
    assert set(made.relabel(labels).tolist()) == {4}


def test_a_square_that_does_not_fit_is_refused() -> None:
    badnets_square.Attack(badnets_square.Params(patch_side=14, margin=2), Setting(10, 16))
    with pytest.raises(UserError, match="a patch of 15 pixels, 2 from the edge, does not fit images of 16"):
        badnets_square.Attack(badnets_square.Params(patch_side=15, margin=2), Setting(10, 16))
