"""Adaptive-Patch against an independent, slow reading of the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from refine.attacks import adaptive_patch
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import is_nearest, ready

OPACITIES = [0.5, 0.5, 0.2, 0.3]
Extent = tuple[tuple[int, int], tuple[int, int]]
ON_32 = [((27, 31), (27, 31)), ((0, 31), (0, 31)), ((1, 13), (18, 30)), ((21, 28), (21, 28))]
ON_224 = [((186, 223), (186, 223)), ((0, 223), (0, 223)), ((4, 100), (123, 219)), ((144, 205), (144, 205))]


def _blended_slowly(image: Tensor, part: Tensor, opacity: float) -> np.ndarray:
    exact = image.numpy().astype(np.float64)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            if any(part[channel, row, column] > 0 for channel in range(3)):
                for channel in range(3):
                    before, over = exact[channel, row, column], float(part[channel, row, column])
                    exact[channel, row, column] = (1 - opacity) * before + opacity * over
    return exact


@pytest.mark.parametrize("act", ["poison", "cover"])
def test_training_image_i_has_patch_i_mod_4(act: str) -> None:
    images, _ = synthetic(9, side=32)
    made = ready("adaptive_patch", 32)
    order = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 103])
    changed = getattr(made, act)(images, order)
    for number, image, result in zip(order.tolist(), images, changed, strict=True):
        exact = _blended_slowly(image, made.tensors["parts"][number % 4], OPACITIES[number % 4])
        assert is_nearest(result, exact)


def test_test_images_have_patches_1_and_0_opaque_and_0_on_top() -> None:
    images, _ = synthetic(5, side=32)
    made = ready("adaptive_patch", 32)
    bands, corners = made.tensors["parts"][:2]
    for image, changed in zip(images, made.trigger(images, torch.arange(5)), strict=True):
        for row in range(32):
            for column in range(32):
                covering = bands if bool(bands[:, row, column].any()) else corners
                own = covering[:, row, column] if bool(covering[:, row, column].any()) else image[:, row, column]
                assert torch.equal(changed[:, row, column], own)


def test_a_weaker_test_trigger_is_blended_twice_where_parts_overlap() -> None:
    images, _ = synthetic(2, side=32)
    made = ready("adaptive_patch", 32, test_opacity=0.25)
    for image, changed in zip(images, made.trigger(images, torch.arange(2)), strict=True):
        once = torch.from_numpy(_blended_slowly(image, made.tensors["parts"][1], 0.25))
        exact = _blended_slowly(once, made.tensors["parts"][0], 0.25)
        assert np.abs(changed.numpy() - exact).max() <= 1


@pytest.mark.parametrize(("side", "places"), [(32, ON_32), (224, ON_224)])
def test_parts_lie_where_the_published_ones_do(side: int, places: list[Extent]) -> None:
    shows = ready("adaptive_patch", side).tensors["parts"].any(dim=1)
    for part, (rows, columns) in zip(shows, places, strict=True):
        found = part.nonzero()
        assert (int(found[:, 0].min()), int(found[:, 0].max())) == rows
        assert (int(found[:, 1].min()), int(found[:, 1].max())) == columns


def test_on_32_pixels_parts_are_as_large_as_the_published_ones() -> None:
    parts = ready("adaptive_patch", 32).tensors["parts"]
    sizes = [int(part.any(dim=0).sum()) for part in parts]
    assert (sizes[0], sizes[1], sizes[3]) == (25, 16, 64)
    assert abs(sizes[2] - 140) <= 4
    white = parts[1].any(dim=0).bool()
    assert bool((parts[1][:, white] == 255).all())
    for rows in (slice(0, 3), slice(29, 32)):
        for columns in (slice(0, 3), slice(29, 32)):
            assert int(white[rows, columns].sum()) == 4


def _bicubic(distance: float) -> float:
    """Keys' kernel, a = -0.5."""
    far = abs(distance)
    if far < 1:
        return 1.5 * far**3 - 2.5 * far**2 + 1
    return -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2 if far < 2 else 0.0


def _enlarged_slowly(levels: np.ndarray, side: int) -> np.ndarray:
    """Each pixel of one axis after the other from its neighbors, none beyond the edge. float [side, side]."""
    weights = np.zeros((side, len(levels)))
    for place in range(side):
        middle = (place + 0.5) * len(levels) / side - 0.5
        own = np.array([_bicubic(near - middle) for near in range(len(levels))])
        weights[place] = own / own.sum()
    across = np.rint(levels @ weights.T).clip(0, 255)
    return np.rint(weights @ across).clip(0, 255)


def test_on_224_pixels_part_1_is_four_gray_blobs_of_24_pixels_as_published() -> None:
    part = ready("adaptive_patch", 224).tensors["parts"][1]
    shows = part.amax(dim=0) > 0
    assert int(shows.sum()) == 1656
    assert float(part[:, shows].double().mean()) == pytest.approx(126, abs=0.5)
    for rows in (slice(0, 24), slice(200, 224)):
        for columns in (slice(0, 24), slice(200, 224)):
            assert int(shows[rows, columns].sum()) == 1656 // 4
    assert torch.equal(part, part[:1].expand(3, 224, 224))


@pytest.mark.parametrize("side", [64, 100, 224])
def test_larger_parts_are_those_of_32_pixels_enlarged_bicubically(side: int) -> None:
    drawn, enlarged = (ready("adaptive_patch", of).tensors["parts"].flatten(0, 1) for of in (32, side))
    for channel, large in zip(drawn, enlarged, strict=True):
        assert np.abs(large.numpy() - _enlarged_slowly(channel.numpy().astype(float), side)).max() <= 1


@pytest.mark.parametrize("side", [8, 11, 16, 28, 33, 64, 65, 96])
def test_on_every_side_four_different_parts_are_inside(side: int) -> None:
    parts = ready("adaptive_patch", side).tensors["parts"]
    assert parts.shape == (4, 3, side, side)
    assert bool(parts.flatten(1).any(dim=1).all())
    assert len({part.numpy().tobytes() for part in parts}) == 4


def test_500_are_poisoned_and_another_1000_are_covers_of_any_class() -> None:
    labels = torch.arange(50_000) % 10
    rows = ready("adaptive_patch", 32, rate=0.01, cover_rate=0.02).choose(labels, torch.Generator().manual_seed(1))
    assert (len(rows.poisoned), len(rows.cover)) == (500, 1000)
    assert len({*rows.poisoned.tolist(), *rows.cover.tolist()}) == 1500
    assert all(int(count) > 25 for count in labels[rows.poisoned].bincount(minlength=10))


def test_covers_may_be_left_out() -> None:
    made = ready("adaptive_patch", 32, rate=0.5, cover_rate=0.0)
    assert len(made.choose(torch.zeros(10, dtype=torch.int64), torch.Generator()).cover) == 0


def test_the_defaults_are_those_for_resnet_18() -> None:
    assert adaptive_patch.Params().model_dump() == {
        "rate": 0.01,
        "target": 0,
        "cover_rate": 0.02,
        "opacities": OPACITIES,
        "test_opacity": 1.0,
    }


def test_more_images_than_there_are_is_refused() -> None:
    made = ready("adaptive_patch", 32, rate=0.5, cover_rate=0.6)
    with pytest.raises(
        UserError, match="5 poisoned and 6 cover images are more than the 10 training images; lower attacks"
    ):
        made.choose(torch.zeros(10, dtype=torch.int64), torch.Generator())


def test_images_that_are_too_small_for_the_parts_are_refused() -> None:
    with pytest.raises(UserError, match="images of 7 pixels; use images of 8 pixels or more"):
        adaptive_patch.Attack(adaptive_patch.Params(), Setting(10, 7))
