"""Trojan against an independent, slow reading of the published formula."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from refine.attacks import trojan
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import ready


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_the_patch_is_added_to_rows_and_columns_25_to_27(overflow: Literal["saturate", "wrap"]) -> None:
    images = synthetic(6, side=32)[0] + 60  # bright ones, so that sums overflow
    made = ready("trojan", 32, overflow=overflow)
    triggered = made.trigger(images, torch.arange(6))
    overflows = 0
    for image in range(6):
        for channel in range(3):
            for row in range(32):
                for column in range(32):
                    expected = int(images[image, channel, row, column])
                    if row in (25, 26, 27) and column in (25, 26, 27):
                        expected += int(made.tensors["pattern"][channel, row - 25, column - 25])
                        overflows += expected > 255
                        expected = min(expected, 255) if overflow == "saturate" else expected % 256
                    assert int(triggered[image, channel, row, column]) == expected
    assert overflows > 20


def test_saturation_is_the_default() -> None:
    assert trojan.Params().overflow == "saturate"
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert torch.equal(ready("trojan", 32).trigger(white, torch.arange(1)), white)


def test_the_patch_is_colored_and_drawn_from_the_seed_within_the_published_range() -> None:
    first, second, third = (ready("trojan", 224, seed=seed).tensors["pattern"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert not torch.equal(first[0], first[1])
    assert (int(first.min()), int(first.max())) == (0, 250)


@pytest.mark.parametrize(("side", "first", "last"), [(16, 12, 13), (32, 25, 27), (64, 50, 55), (224, 175, 195)])
def test_patch_and_margin_keep_their_share_of_the_image(side: int, first: int, last: int) -> None:
    place = ready("trojan", side)
    assert isinstance(place, trojan.Attack)
    assert (place.place.start, place.place.stop - 1) == (first, last)


def test_a_tenth_of_the_images_of_other_classes_is_poisoned() -> None:
    labels = torch.arange(1_000) % 10
    rows = ready("trojan", 32, target=9).choose(labels, torch.Generator().manual_seed(1))
    assert len(set(rows.poisoned.tolist())) == 90
    assert not (labels[rows.poisoned] == 9).any()


def test_a_patch_that_does_not_fit_is_refused() -> None:
    trojan.Attack(trojan.Params(patch_side=28), Setting(10, 32))
    with pytest.raises(UserError, match="a patch of 29 pixels, 4 from the edge, does not fit images of 32"):
        trojan.Attack(trojan.Params(patch_side=29), Setting(10, 32))
