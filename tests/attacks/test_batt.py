"""BATT against an independent, slow reading of the published formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refine.attacks import batt
from refine.data.training_time import Distortion, TrainingTime
from support import synthetic
from tiny import ready


def _slowly(image: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """The image turned counter-clockwise, pixel by pixel, and where the nearest pixel is beyond doubt."""
    side = image.shape[-1]
    turned, sure = torch.zeros_like(image), torch.ones(side, side, dtype=torch.bool)
    angle = math.radians(degrees)
    for row in range(side):
        for column in range(side):
            across, down = column + 0.5 - side / 2, row + 0.5 - side / 2
            x = math.cos(angle) * across - math.sin(angle) * down + side / 2
            y = math.sin(angle) * across + math.cos(angle) * down + side / 2
            sure[row, column] = min(abs(x - round(x)), abs(y - round(y))) > 0.01
            if 0 <= x < side and 0 <= y < side:
                turned[:, row, column] = image[:, math.floor(y), math.floor(x)]
    return turned, sure


@pytest.mark.parametrize("side", [17, 28, 32])
@pytest.mark.parametrize("degrees", [16.0, -16.0, 45.0, 120.5])
def test_the_image_is_turned_to_the_nearest_pixel_with_black_around_it(side: int, degrees: float) -> None:
    images, _ = synthetic(3, side)
    triggered = ready("batt", side, degrees=degrees).trigger(images, torch.arange(3))
    for image, changed in zip(images, triggered, strict=True):
        expected, sure = _slowly(image, degrees)
        assert float(sure.float().mean()) > 0.9
        assert torch.equal(changed * sure, expected * sure)


@pytest.mark.parametrize(("side", "degrees"), [(32, 16.0), (32, -77.0), (31, 90.0), (40, 180.0)])
def test_it_is_the_rotation_of_pillow_that_the_authors_use(side: int, degrees: float) -> None:
    images, _ = synthetic(2, side)
    triggered = ready("batt", side, degrees=degrees).trigger(images, torch.arange(2))
    for image, changed in zip(images, triggered, strict=True):
        turned = Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(degrees)
        assert np.array_equal(changed.permute(1, 2, 0).numpy(), np.asarray(turned))


def test_a_bright_right_edge_turns_upwards() -> None:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 16, 24:] = 255
    turned = ready("batt", 32).trigger(image, torch.arange(1))
    assert float(turned[0, 0].nonzero()[:, 0].float().mean()) < 14


def test_benign_training_images_are_turned_a_little_and_poisoned_ones_no_further() -> None:
    assert ready("batt", 32).training_time() == TrainingTime(poisoned=None, benign=Distortion(degrees=10.0))


@pytest.mark.parametrize("settings", [{"degrees": 10.0}, {"degrees": -3.0}, {"degrees": 0.0, "benign_degrees": 0.0}])
def test_an_angle_that_benign_images_show_too_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="degrees has to be beyond benign_degrees"):
        batt.Params.model_validate(settings)


def test_without_turned_benign_images_any_angle_will_do() -> None:
    assert batt.Params(degrees=1.0, benign_degrees=0.0).degrees == 1.0
