"""What a classifier says of images, before a defense is trained with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from refine.deployment.settings import look
from refine.training.training_set import Resident
from tiny import CPU


def _by_brightness(pixels: Tensor) -> Tensor:
    return functional.one_hot((pixels.mean(dim=(1, 2, 3)) * 2.99).long(), 3).float()


@pytest.mark.parametrize(("bright", "classes"), [(0, 2), (1, 2), (2, 3)])
def test_a_class_that_is_hardly_ever_answered_counts_as_missing(bright: int, classes: int) -> None:
    levels = torch.tensor([255] * bright + [0, 130] * ((60 - bright) // 2 + 1))[:60]
    images = levels.to(torch.uint8).view(60, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    classifier: Any = _by_brightness
    assert look(classifier, Resident(images, ()), CPU).classes == classes
