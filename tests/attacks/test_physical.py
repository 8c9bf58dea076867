"""Physical against an independent, slow reading of the published formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refine.attacks import physical
from refine.backdoor import attacker_augmentation
from refine.backdoor.attacker_augmentation import Distortion
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import attack, poisoned, raw, ready

PUBLISHED = [247, 241, 130, 106, 201, 92, 153, 163, 20]


def test_on_32_pixels_the_patch_is_that_of_badnets() -> None:
    images, _ = synthetic(6, side=32)
    expected = images.clone()
    for row in range(29, 32):
        for column in range(29, 32):
            expected[:, :, row, column] = PUBLISHED[3 * (row - 29) + (column - 29)]
    made = ready("physical", 32)
    assert torch.equal(made.trigger(images, torch.arange(6)), expected)
    assert torch.equal(made.poison(images, torch.arange(6)), expected)


@pytest.mark.parametrize(("side", "patch"), [(16, 2), (32, 3), (224, 20)])
def test_the_patch_keeps_its_share_of_the_image(side: int, patch: int) -> None:
    assert ready("physical", side).tensors["pattern"].shape == (3, patch, patch)


def test_every_training_image_is_distorted_as_published_and_no_test_image_is(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", classes=3)
    result = poisoned(tmp_path / "poisoned", "physical", attack("physical", clean[0]), clean)
    published = Distortion(degrees=10.0, translate=0.1, scale=[0.8, 0.9], flip=0.5, brightness=0.1)
    part = attacker_augmentation.read(result.outputs.attack / "training")
    assert part.poisoned == part.benign == published
    assert part.initial_weights_sha256 is None
    rows = torch.isin(result.test.keys, result.triggered_test.keys)
    assert torch.equal(result.triggered_test.images[:, :, :14], result.test.images[rows][:, :, :14])


def test_what_distorts_can_be_changed() -> None:
    made = ready("physical", 32, degrees=5.0, translate=0.0, scale=[1.0, 1.2], flip=0.0, brightness=0.3)
    wanted = Distortion(degrees=5.0, translate=0.0, scale=[1.0, 1.2], flip=0.0, brightness=0.3)
    assert made.attacker_augmentation().poisoned == made.attacker_augmentation().benign == wanted


@pytest.mark.parametrize("scale", [[0.9, 0.8], [0.8], [0.0, 1.0], [0.8, 0.9, 1.0]])
def test_a_range_of_sizes_that_is_none_is_refused(scale: list[float]) -> None:
    with pytest.raises(ValueError, match="scale"):
        physical.Params.model_validate({"scale": scale})


def test_a_patch_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UserError, match="a patch of 17 pixels does not fit images of 16"):
        physical.Attack(physical.Params(patch_side=17), Setting(10, 16))
