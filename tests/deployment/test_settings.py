"""Settings that fit a classifier and its images, and what it says of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from refine.defenses.refine.training.params import TrainRefineParams
from refine.deployment.settings import built_in, look, refitted
from refine.training.training_set import Resident
from tiny import CPU, classifier_card


def _by_brightness(pixels: Tensor) -> Tensor:
    return functional.one_hot((pixels.mean(dim=(1, 2, 3)) * 2.99).long(), 3).float()


@pytest.mark.parametrize(("bright", "classes"), [(0, 2), (1, 2), (2, 3)])
def test_a_class_that_is_hardly_ever_answered_counts_as_missing(bright: int, classes: int) -> None:
    levels = torch.tensor([255] * bright + [0, 130] * ((60 - bright) // 2 + 1))[:60]
    images = levels.to(torch.uint8).view(60, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    classifier: Any = _by_brightness
    assert look(classifier, Resident(images, ()), CPU).classes == classes


@pytest.mark.parametrize(("side", "warp"), [(16, 0.5), (32, 1.0), (224, 7.0), (1024, 16.0)])
def test_the_warp_grows_with_the_image_up_to_a_bound(side: int, warp: float) -> None:
    encoder = built_in(classifier_card(side=side), 1000, mirrors=False).encoder
    assert encoder
    assert encoder.universal_warp == warp


def test_settings_of_another_version_stay_but_for_what_depends_on_the_number_of_images() -> None:
    of = classifier_card(side=32)
    now = built_in(of, 10_000, mirrors=True)
    content = now.model_dump()
    content["encoder"] |= {"min_steps": 300, "random_patterns": 0.0}
    content["transform"] |= {"replaced_in_head": 1.0}
    fewer = refitted(TrainRefineParams.model_validate(content), of, 200)
    assert fewer.encoder
    assert (fewer.encoder.min_steps, fewer.encoder.random_patterns) == (300, 0.0)
    assert fewer.transform.model_dump()["replaced_in_head"] == 1.0
    assert fewer.recipe.augment == now.recipe.augment
    of_fewer = built_in(of, 200, mirrors=True)
    assert of_fewer.encoder
    assert fewer.encoder.batch_size == of_fewer.encoder.batch_size < now.recipe.batch_size
    assert fewer.encoder.optimizer.lr == of_fewer.encoder.optimizer.lr
    assert (fewer.recipe.batch_size, fewer.recipe.optimizer.lr) == (
        of_fewer.recipe.batch_size,
        of_fewer.recipe.optimizer.lr,
    )
