"""The low-frequency trigger: which frequencies it has, how large it is, and whether it leads to its target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor, nn

from refine.attacks import low_frequency
from refine.core.errors import UserError
from refine.models.classifier import Classifier, Normalization
from refine.poisoning.adversarial.pattern import Ball, Box, kept, sought_pattern
from refine.poisoning.attack import Setting
from support import synthetic

SIDE = 16


class BySlope(nn.Module):
    """Class 1 of two if an image gets brighter to the right."""

    def forward(self, images: Tensor) -> Tensor:
        left, right = images[..., : SIDE // 2].mean(dim=(1, 2, 3)), images[..., SIDE // 2 :].mean(dim=(1, 2, 3))
        return torch.stack([left - right, right - left], dim=1) * 10


def _classifier() -> Classifier:
    return Classifier(BySlope(), Normalization(mean=[0.0] * 3, std=[1.0] * 3)).eval()


def _sought(**settings: object) -> Tensor:
    images = synthetic(40, SIDE)[0]
    of = low_frequency.Sought.model_validate(settings)
    generator, device = torch.Generator().manual_seed(0), torch.device("cpu")
    bound = Box(of.epsilon, of.step)
    return sought_pattern(_classifier(), images, 1, 4, bound, of.steps, generator, device, of.random_start)


def test_the_projection_keeps_low_frequencies_and_nothing_else() -> None:
    keep = kept(SIDE, 4).double()
    torch.testing.assert_close(keep @ keep, keep, rtol=0, atol=1e-6)
    places = (torch.arange(SIDE, dtype=torch.float64) + 0.5) * math.pi / SIDE
    torch.testing.assert_close(keep @ torch.cos(3 * places), torch.cos(3 * places), rtol=0, atol=1e-6)
    assert float((keep @ torch.cos(4 * places)).abs().max()) < 1e-6


@pytest.mark.parametrize("start", [True, False])
def test_the_pattern_has_no_high_frequency_and_stays_in_its_bound(start: bool) -> None:
    pattern = _sought(epsilon=20.0, step=2.0, steps=30, random_start=start).numpy()
    assert np.abs(pattern).max() == pytest.approx(20, rel=1e-4)
    spectrum = dctn(pattern, axes=(1, 2), norm="ortho")
    assert np.abs(spectrum[:, 4:]).max() < 1e-3
    assert np.abs(spectrum[:, :, 4:]).max() < 1e-3
    assert np.abs(spectrum[:, :4, :4]).max() > 1


def test_a_pattern_can_be_bounded_in_length_instead() -> None:
    images, generator = synthetic(40, SIDE)[0], torch.Generator().manual_seed(0)
    ball = Ball(radius=3.0, size=0.5)
    pattern = sought_pattern(_classifier(), images, 1, SIDE, ball, 20, generator, torch.device("cpu"))
    assert float(pattern.norm()) == pytest.approx(3 * 255, rel=1e-4)
    reached = (_classifier()((images + pattern).clamp(0, 255) / 255).argmax(dim=1) == 1).double().mean()
    assert reached > 0.9
    slope = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(ball.move(slope), torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(ball.within(slope), torch.tensor([1.8, 2.4]))
    torch.testing.assert_close(ball.within(slope / 10), slope / 10)


def test_it_leads_to_its_target() -> None:
    images = synthetic(40, SIDE)[0]
    setting = Setting(num_classes=2, side=SIDE, name="low_frequency")
    attack = low_frequency.Attack(low_frequency.Params(target=1), setting)
    attack.tensors = {"pattern": _sought(epsilon=40.0, step=4.0, steps=30)}
    before, after = (
        (_classifier()(shown / 255).argmax(dim=1) == 1).double().mean()
        for shown in (images, attack.trigger(images, torch.arange(40)))
    )
    assert before < 0.9 < after
    assert int((attack.trigger(images, torch.arange(40)).int() - images.int()).abs().max()) <= 40


def test_a_cutoff_without_any_frequency_is_refused() -> None:
    setting = Setting(num_classes=2, side=SIDE, name="low_frequency")
    with pytest.raises(UserError, match=r"leaves no frequency of images of 16 pixels; raise attacks\.low_frequency"):
        low_frequency.Attack(low_frequency.Params(cutoff=0.01), setting)
