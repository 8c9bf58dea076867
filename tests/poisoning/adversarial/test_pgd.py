"""Gradient ascent against a slow reading of its formula, one pixel at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from refine.models.classifier import Classifier
from refine.poisoning.adversarial import pgd
from refine.poisoning.adversarial.settings import Perturbation
from support import synthetic
from tiny import classifier


def _settings(**changes: object) -> Perturbation:
    published = {"epsilon": 8.0, "step": 2.0, "steps": 4, "random_start": False}
    return Perturbation.model_validate({**published, **changes})


def _slowly(of: Classifier, image: Tensor, label: int, settings: Perturbation, start: np.ndarray) -> np.ndarray:
    """x + d of one image, with every clip written out."""
    before = image.numpy().astype(np.float32) / np.float32(255)
    epsilon, step = np.float32(settings.epsilon / 255), np.float32(settings.step / 255)

    def inside(pixels: np.ndarray) -> np.ndarray:
        for place in np.ndindex(before.shape):
            pixels[place] = min(max(pixels[place], before[place] - epsilon), before[place] + epsilon)
            pixels[place] = min(max(pixels[place], 0), 1)
        return pixels

    pixels = inside(before + start)
    for _ in range(settings.steps):
        tensor = torch.from_numpy(pixels.copy())[None].requires_grad_()
        normalized = (tensor - of.mean) / of.std
        cross_entropy(of.network(normalized), torch.tensor([label])).backward()
        assert tensor.grad is not None
        pixels = inside(pixels + step * np.sign(tensor.grad[0].numpy()))
    return pixels


@pytest.mark.parametrize("settings", [_settings(), _settings(step=1.5, steps=7), _settings(epsilon=3.0, step=5.0)])
def test_it_ascends_as_the_formula_says(settings: Perturbation) -> None:
    of = classifier()
    images, labels = synthetic(4)
    changed = pgd.perturbed(of, images, labels, settings, Generator())
    agreeing = []
    for image, label, result in zip(images, labels.tolist(), changed, strict=True):
        expected = _slowly(of, image, label, settings, np.zeros(1, dtype=np.float32))
        agreeing.append(np.abs(result.numpy() - 255 * expected) <= 0.5 + 1e-3)
    assert np.mean(agreeing) > 0.99, "gradients of nearly nothing may have either sign"


def test_a_random_start_is_uniform_in_the_box_and_drawn_from_the_generator() -> None:
    of = classifier()
    images, labels = torch.full((8, 3, 16, 16), 128, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    settings = _settings(steps=0, random_start=True)
    first, again, other = (
        pgd.perturbed(of, images, labels, settings, Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    change = first.int() - 128
    assert (int(change.min()), int(change.max())) == (-8, 8)
    assert abs(float(change.float().mean())) < 0.3
    assert float(change.float().std()) == pytest.approx(8 / 3**0.5, rel=0.05)


def test_the_loss_on_the_label_rises_and_no_channel_moves_further_than_epsilon() -> None:
    of = classifier()
    images, labels = synthetic(30)
    changed = pgd.perturbed(of, images, labels, _settings(steps=10), Generator())
    assert int((changed.int() - images.int()).abs().max()) == 8
    before, after = (float(cross_entropy(of(batch / 255), labels)) for batch in (images, changed))
    assert after > before + 0.1


def test_pixels_stay_pixels_at_both_ends() -> None:
    of = classifier()
    images = torch.cat([torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 255)]).to(torch.uint8)
    changed = pgd.perturbed(of, images, torch.zeros(4, dtype=torch.int64), _settings(), Generator()).int()
    assert int(changed[:2].max()) <= 8
    assert int(changed[2:].min()) >= 247


def test_more_images_than_a_batch_are_perturbed_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    of = classifier()
    images, labels = synthetic(10)
    together = pgd.perturbed(of, images, labels, _settings(), Generator())
    monkeypatch.setattr(pgd, "_BATCH", 4)
    apart = pgd.perturbed(of, images, labels, _settings(), Generator())
    assert float((together != apart).float().mean()) < 0.01


def test_the_classifier_and_the_images_are_left_as_they_were() -> None:
    of = classifier()
    images, labels = synthetic(4)
    state = {name: value.clone() for name, value in of.state_dict().items()}
    before = images.clone()
    pgd.perturbed(of, images, labels, _settings(), Generator())
    assert torch.equal(images, before)
    assert all(torch.equal(state[name], value) for name, value in of.state_dict().items())
    assert all(parameter.grad is None for parameter in of.parameters())
