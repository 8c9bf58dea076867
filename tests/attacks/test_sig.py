"""SIG against an independent, slow reading of the published formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refine.attacks import sig
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import attack, is_nearest, poisoned, raw, ready


def _slowly(images: Tensor, amplitude: float, periods: int = 6) -> NDArray[np.float64]:
    exact = np.zeros(images.shape)
    for place in np.ndindex(images.shape):
        wave = amplitude * math.sin(2 * math.pi * place[3] * periods / images.shape[3])
        exact[place] = min(max(int(images[place]) + wave, 0), 255)
    return exact


@pytest.mark.parametrize("side", [16, 32, 37])
def test_the_wave_is_weaker_on_training_images_than_at_test(side: int) -> None:
    images, _ = synthetic(4, side)
    made = ready("sig", side)
    assert is_nearest(made.poison(images, torch.arange(4)), _slowly(images, 40))
    assert is_nearest(made.trigger(images, torch.arange(4)), _slowly(images, 60))


def test_amplitudes_and_periods_are_settings() -> None:
    images, _ = synthetic(2, 32)
    made = ready("sig", 32, amplitude=10.5, test_amplitude=25, periods=3)
    assert is_nearest(made.poison(images, torch.arange(2)), _slowly(images, 10.5, 3))
    assert is_nearest(made.trigger(images, torch.arange(2)), _slowly(images, 25, 3))


def test_black_and_white_do_not_wrap() -> None:
    for level, extreme in ((0, 60), (255, 195)):
        images = torch.full((1, 3, 48, 48), level, dtype=torch.uint8)
        triggered = ready("sig", 48).trigger(images, torch.arange(1))
        assert {int(triggered.min()), int(triggered.max())} == {level, extreme}


def test_a_tenth_of_the_target_class_is_poisoned_and_no_label_changes(tmp_path: Path) -> None:
    labels = torch.arange(50_000) % 10
    rows = ready("sig", 32, target=6).choose(labels, torch.Generator().manual_seed(1)).poisoned
    assert len(set(rows.tolist())) == 500
    assert set(labels[rows].tolist()) == {6}
    clean = raw(tmp_path / "raw", images=100, classes=5)
    result = poisoned(tmp_path / "poisoned", "sig", attack("sig", clean[0], target=3), clean)
    assert torch.equal(result.poisoned_train.labels, result.train.labels)
    assert (result.record.rate_of_dataset, result.record.rate_of_classes) == (0.02, 0.1)


def test_at_test_the_other_classes_get_the_stronger_trigger_and_the_target_label(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=100, classes=5)
    result = poisoned(tmp_path / "poisoned", "sig", attack("sig", clean[0], target=3), clean)
    rows = result.test.labels != 3
    assert is_nearest(result.triggered_test.images, _slowly(result.test.images[rows], 60))
    assert set(result.triggered_test.labels.tolist()) == {3}
    chosen = torch.tensor(result.record.poisoned)
    assert is_nearest(result.poisoned_train.images[chosen], _slowly(result.train.images[chosen], 40))


def test_more_stripes_than_the_columns_can_show_are_refused() -> None:
    sig.Attack(sig.Params(periods=15), Setting(10, 32))
    with pytest.raises(UserError, match=r"16 stripes need images wider than 32 pixels, not 32; lower .*sig.periods"):
        sig.Attack(sig.Params(periods=16), Setting(10, 32))
