"""BadNets against an independent, slow reading of the published formula."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refine.attacks import badnets
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import attack, files_of, poisoned, raw, ready

PUBLISHED = [247, 241, 130, 106, 201, 92, 153, 163, 20]

_attack = partial(ready, "badnets")


def _slowly(image: Tensor) -> Tensor:
    """The published trigger on an image of 32 pixels, pixel by pixel."""
    changed = image.clone()
    for channel in range(3):
        for row in range(29, 32):
            for column in range(29, 32):
                changed[channel, row, column] = PUBLISHED[3 * (row - 29) + (column - 29)]
    return changed


def test_the_patch_on_32_pixels_is_the_published_texture_in_the_bottom_right_corner() -> None:
    images, _ = synthetic(6, side=32)
    triggered = _attack(32).trigger(images, torch.arange(6))
    for image, changed in zip(images, triggered, strict=True):
        assert torch.equal(changed, _slowly(image))


def test_the_test_trigger_is_never_mirrored() -> None:
    images = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    triggered = _attack(32).trigger(images, torch.arange(40))
    assert not triggered[:, :, :, :29].any()
    assert bool((triggered[:, :, 29:, 29:] == torch.tensor(PUBLISHED).view(3, 3)).all())


def test_the_training_trigger_is_the_test_trigger() -> None:
    images, _ = synthetic(6, side=32)
    made = _attack(32)
    assert torch.equal(made.poison(images, torch.arange(6)), made.trigger(images, torch.arange(6)))


@pytest.mark.parametrize(("side", "patch"), [(32, 3), (16, 2), (28, 3), (64, 6), (224, 20), (112, 10)])
def test_the_patch_keeps_its_share_of_the_image(side: int, patch: int) -> None:
    triggered = _attack(side).trigger(torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.arange(1))
    assert not triggered[:, :, : side - patch].any()
    assert not triggered[:, :, :, : side - patch].any()
    assert triggered[:, :, side - patch, side - patch :].any()
    assert triggered[:, :, side - patch :, side - patch].any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), side=st.integers(4, 20))
def test_a_patch_of_any_size_replaces_its_pixels_and_no_other(data: st.DataObject, side: int) -> None:
    patch = data.draw(st.integers(1, side))
    images, _ = synthetic(2, side)
    made = _attack(side, patch_side=patch)
    triggered = made.trigger(images, torch.arange(2))
    for row in range(side):
        for column in range(side):
            inside = row >= side - patch and column >= side - patch
            place = (row - side + patch, column - side + patch)
            expected = made.tensors["pattern"][:, *place].expand(2, 3) if inside else images[:, :, row, column]
            assert torch.equal(triggered[:, :, row, column], expected)


def test_a_texture_that_was_not_published_depends_on_the_seed_alone() -> None:
    first, second, third = (_attack(64, seed=seed).tensors["pattern"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.shape == (3, 6, 6)


def test_a_texture_that_was_not_published_is_gray_as_the_published_one() -> None:
    pattern = _attack(224).tensors["pattern"]
    assert torch.equal(pattern, pattern[:1].expand(3, 20, 20))
    assert len(pattern.unique()) > 200


def test_a_tenth_of_all_images_is_poisoned_from_every_class() -> None:
    labels = torch.arange(50_000) % 10
    chosen = _attack(32).choose(labels, torch.Generator().manual_seed(1))
    counts = labels[chosen.poisoned].bincount(minlength=10).tolist()
    assert len(set(chosen.poisoned.tolist())) == 5_000
    assert len(chosen.cover) == 0
    assert all(400 < count < 600 for count in counts)


def test_another_seed_chooses_other_images() -> None:
    labels = torch.arange(1_000) % 10
    first, second = (_attack(32).choose(labels, torch.Generator().manual_seed(seed)).poisoned for seed in (1, 2))
    assert set(first.tolist()) != set(second.tolist())


@pytest.mark.parametrize(("rate", "count"), [(0.05, 5), (0.1, 10), (0.004, 0), (0.006, 1), (1.0, 100)])
def test_the_rate_is_of_the_whole_training_set(rate: float, count: int) -> None:
    made = _attack(32, rate=rate)
    labels = torch.arange(100) % 10
    if count == 0:
        with pytest.raises(UserError, match=r"picks none of 100 images; raise attacks\.badnets\.rate"):
            made.choose(labels, torch.Generator())
    else:
        assert len(made.choose(labels, torch.Generator()).poisoned) == count


def test_nine_thousand_of_ten_thousand_test_images_get_the_trigger() -> None:
    labels = torch.arange(10_000) % 10
    for target in (0, 7):
        assert int((_attack(32, target=target).relabel(labels) != labels).sum()) == 9_000


def test_test_images_of_the_target_class_are_left_out(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=100, classes=10)
    result = poisoned(tmp_path / "poisoned", "badnets", attack("badnets", clean[0], target=4), clean)
    assert len(result.test.labels) == 50
    assert len(result.triggered_test.labels) == 45
    assert {info["original_label"] for info in result.triggered_test.infos} == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert set(result.triggered_test.labels.tolist()) == {4}
    assert result.triggered_test.manifest.counts == [0, 0, 0, 0, 45, 0, 0, 0, 0, 0]


def test_another_target_changes_labels_and_no_training_image(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    first, second = (
        poisoned(tmp_path / f"to-{target}", "badnets", attack("badnets", clean[0], target=target), clean)
        for target in (0, 1)
    )
    assert torch.equal(first.poisoned_train.images, second.poisoned_train.images)
    assert first.record.poisoned == second.record.poisoned
    assert files_of(first.outputs.train) != files_of(second.outputs.train)


def test_a_patch_larger_than_the_image_is_refused() -> None:
    badnets.Attack(badnets.Params(patch_side=16), Setting(10, 16))
    with pytest.raises(UserError, match=r"patch of 17 pixels does not fit images of 16; lower attacks.\*.patch_side"):
        badnets.Attack(badnets.Params(patch_side=17), Setting(10, 16))


def test_a_target_that_is_no_class_is_refused() -> None:
    badnets.Attack(badnets.Params(target=9), Setting(10, 16))
    with pytest.raises(UserError, match="target 10 is not a class of this data set; choose one from 0 to 9"):
        badnets.Attack(badnets.Params(target=10), Setting(10, 16))


def test_the_released_code_poisons_the_positions_on_record() -> None:
    """Spec 7: Python's generator, seed 666, one shuffle of positions sorted by class. Ours is another selection."""
    positions = list(range(50_000))
    random.Random(666).shuffle(positions)
    assert positions[:5] == [32111, 9412, 26374, 35284, 9998]
    assert sum(position < 5_000 for position in positions[:5_000]) == 490
