"""Inverting a trigger: the mask shrinks to the pixel that forces a class."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

import backdoored
from refine.defending.inversion import Search, invert, rows

SEARCH = Search(steps=80, batch_size=16, lr=0.1, weight=1e-3, factor=1.1, success=0.98)


def test_the_mask_shrinks_to_the_pixel_that_forces_the_class() -> None:
    of = backdoored.classifier(40.0)
    pixels = backdoored.images(60)[torch.arange(60) % 6 != backdoored.TARGET] / 255
    found = invert(of, pixels, backdoored.TARGET, SEARCH, Generator().manual_seed(1))
    assert found.succeeded
    assert found.least == pytest.approx(float(found.mask.mean()), rel=0.5)
    assert found.least <= found.area < 0.1
    assert found.mask.flatten().argmax() == backdoored.SIDE - 1  # the corner
    stamped = pixels * (1 - found.mask) + found.mask * found.pattern
    assert (of(stamped).argmax(dim=1) == backdoored.TARGET).double().mean() >= 0.98


def test_what_never_succeeds_counts_as_the_whole_image() -> None:
    of, pixels = backdoored.classifier(0.0), backdoored.images(20) / 255
    found = invert(of, pixels, 1, SEARCH.model_copy(update={"steps": 5}), Generator().manual_seed(1))
    assert (found.succeeded, found.area, found.least) == (False, 1.0, 1.0)
    assert found.mask.shape == (1, 12, 12)
    assert found.pattern.shape == (3, 12, 12)


def test_batches_are_as_large_as_can_be_and_go_through_all_images() -> None:
    order = rows(10, 4, Generator().manual_seed(0))
    first = [next(order) for _ in range(2)]
    assert [len(batch) for batch in first] == [4, 4]
    assert len(torch.cat(first).unique()) == 8
    assert len(next(rows(3, 4, Generator().manual_seed(0)))) == 3
