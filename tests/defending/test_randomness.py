"""Random numbers keyed by an image."""

from __future__ import annotations

import torch

from refine.defending.randomness import integers, keys


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_an_image_has_its_number_whatever_it_comes_with() -> None:
    images = _images(10)
    whole = integers(images, 3, 100, 4)
    assert torch.equal(integers(images.flip(0), 3, 100, 4).flip(0), whole)
    assert torch.equal(torch.cat([integers(image[None], 3, 100, 4) for image in images]), whole)


def test_rounding_on_a_device_and_memory_order_change_nothing() -> None:
    images = (_images(10) * 255).round() / 255
    assert keys(images + 1e-6, 1) == keys(images, 1)
    assert keys(images.to(memory_format=torch.channels_last), 1) == keys(images, 1)


def test_seed_and_a_single_pixel_make_other_numbers() -> None:
    (image,) = _images(1)
    changed = image.clone()
    changed[0, 0, 0] = 1 - changed[0, 0, 0]
    assert len({*keys(image[None], 1), *keys(image[None], 2), *keys(changed[None], 1)}) == 3


def test_more_numbers_begin_with_the_fewer_ones() -> None:
    assert torch.equal(integers(_images(5), 1, 9, 6)[:, :2], integers(_images(5), 1, 9, 2))


def test_they_are_uniform() -> None:
    counts = integers(_images(300), 1, 5, 20).flatten().bincount(minlength=5)
    assert (counts - 1200).abs().max() < 150  # five standard deviations


def test_no_image_has_no_number() -> None:
    assert integers(_images(0), 1, 5, 3).shape == (0, 3)
