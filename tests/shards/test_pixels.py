"""Images in memory: their order at rest, and the way to floats and back."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from refine.shards.reading.pixels import at_rest, empty_images, in_batches, to_pixels

CPU = torch.device("cpu")


def images(count: int, side: int = 4) -> Tensor:
    """Random images uint8 [count, 3, side, side]."""
    return torch.randint(0, 256, (count, 3, side, side), generator=Generator().manual_seed(0), dtype=torch.uint8)


def test_at_rest_the_rows_of_an_image_hold_its_channels_side_by_side() -> None:
    for given in (images(5), images(5).contiguous(memory_format=torch.channels_last), at_rest(images(5))):
        resting = at_rest(given)
        assert torch.equal(resting, images(5))
        assert resting.permute(0, 2, 1, 3).is_contiguous()
    assert empty_images(5, 4).stride() == at_rest(images(5)).stride()
    assert (empty_images(5, 4).shape, empty_images(5, 4).dtype) == ((5, 3, 4, 4), torch.uint8)


def test_floats_keep_the_memory_order_and_leave_the_bytes_alone() -> None:
    resting = at_rest(images(5))
    pixels = to_pixels(resting)
    assert pixels.stride() == resting.stride()
    assert torch.equal(resting, images(5))


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_batches_in_order_are_the_images_in_order(size: int) -> None:
    parts = list(in_batches(images(10), size, CPU))
    assert all(len(part) == size for part in parts[:-1])
    assert torch.equal(torch.cat(parts), images(10).float() / 255)
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)


def test_every_brightness_comes_back_after_rounding() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 3, 1, 1)
    assert torch.equal((to_pixels(values) * 255).round().to(torch.uint8), values)
