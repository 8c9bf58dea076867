"""Training an encoder under faint patterns that are drawn for each image."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from refine.defenses.refine.training import random_patterns
from refine.defenses.refine.training.random_patterns import overlaid

MOST = 0.3


def _overlaid(pixels: Tensor, seed: int = 1) -> Tensor:
    return overlaid(pixels, MOST, Generator().manual_seed(seed))


def _changes(pixels: Tensor, images: Tensor) -> Tensor:
    """Largest change of each image, float [N]."""
    return (images - pixels).abs().amax(dim=(1, 2, 3))


def test_about_half_of_the_images_get_a_pattern_each() -> None:
    pixels = torch.rand(400, 3, 8, 8)
    images = _overlaid(pixels)
    assert images.shape == pixels.shape
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert ((images >= 0) & (images <= 1)).all()
    changed = _changes(pixels, images) > 0
    assert 150 < changed.sum() < 250
    assert len((images - pixels)[changed].unique(dim=0)) == changed.sum()


def test_patterns_are_as_faint_as_they_should_be() -> None:
    pixels = torch.zeros(2000, 3, 8, 8)  # noise that is cut to white changes an image by its whole opacity
    changes = _changes(pixels, _overlaid(pixels))
    assert MOST - 0.01 < changes.max() <= MOST
    assert changes[changes > 0].median() == pytest.approx(MOST / 2, abs=0.02)


def test_half_of_the_patterns_are_other_images() -> None:
    pixels = torch.zeros(2000, 3, 8, 8)
    assert 400 < (_changes(pixels, _overlaid(pixels)) > 0).sum() < 600, "other images are black, too"
    bright = torch.arange(2000).view(-1, 1, 1, 1) / 2000
    pixels = bright.expand(-1, 3, 8, 8).contiguous()
    images = _overlaid(pixels)
    flat = images.flatten(1).std(dim=1) < 1e-6
    assert 400 < (flat & (_changes(pixels, images) > 0)).sum() < 600, "an even image over an even one is even"


def test_noise_is_coarse_and_fine_and_colored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_patterns, "_DRAWN", 64)
    pixels = torch.zeros(500, 3, 32, 32)
    images = _overlaid(pixels)
    noise = images[_changes(pixels, images) > 0]
    noise = noise / noise.amax(dim=(1, 2, 3), keepdim=True)
    steps = (noise[..., 1:] - noise[..., :-1]).abs().mean(dim=(1, 2, 3))
    assert steps.min() < 0.05
    assert steps.max() > 0.25
    assert ((noise[:, 0] - noise[:, 1]).abs().mean(dim=(1, 2)) > 0.1).all()


def test_a_seed_draws_the_same_again() -> None:
    pixels = torch.rand(50, 3, 8, 8)
    assert torch.equal(_overlaid(pixels), _overlaid(pixels))
    assert not torch.equal(_overlaid(pixels), _overlaid(pixels, 2))
