"""Distortion moves pixels where torchvision's affine maps move them, one draw per image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as theirs

from refine.backdoor import distort as distorting
from refine.backdoor.attacker_augmentation import Distortion
from refine.backdoor.distort import distort

SIDE = 16


def generator(seed: int = 0) -> Generator:
    """A generator with a fixed seed."""
    return Generator().manual_seed(seed)


def images(count: int = 1, side: int = SIDE) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand((count, 3, side, side), generator=generator(7))


def with_draws(
    monkeypatch: pytest.MonkeyPatch,
    settings: Distortion,
    angle: float = 0.5,
    across: float = 0.5,
    down: float = 0.5,
    size: float = 0.5,
    flip: float = 0.5,
    light: float = 0.5,
) -> Tensor:
    """One distorted image, the random draws being these; one half is the middle of every range."""
    draws: Iterator[float] = iter((angle, across, down, size, flip, light))
    monkeypatch.setattr(distorting, "uniform", lambda batch, _: batch.new_full((len(batch),), next(draws)))
    return distort(images(), settings, generator())


def expected(angle: float = 0, across: int = 0, down: int = 0, scale: float = 1, flip: bool = False) -> Tensor:
    """The same by torchvision: mirrored, turned and scaled, moved."""
    image = theirs.hflip(images()) if flip else images()
    return theirs.affine(image, angle, [across, down], scale, [0.0], InterpolationMode.NEAREST)


def agree(one: Tensor, other: Tensor, share: float = 1.0) -> bool:
    """Whether the pixels agree, or this share of them where a rounding may fall to either side."""
    return float((one - other).abs().lt(1e-6).all(dim=1).float().mean()) >= share


@pytest.mark.parametrize("degrees", [15.0, 30.0, 77.0, 90.0, 180.0])
@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_a_rotation_is_torchvisions(monkeypatch: pytest.MonkeyPatch, degrees: float, draw: float) -> None:
    ours = with_draws(monkeypatch, Distortion(degrees=degrees), angle=draw)
    assert agree(ours, expected(angle=(2 * draw - 1) * -degrees), share=0.98)
    assert not agree(ours, images(), share=0.5)


@pytest.mark.parametrize(("across", "down"), [(4, 0), (-4, 0), (0, 4), (4, -4)])
def test_a_shift_is_torchvisions(monkeypatch: pytest.MonkeyPatch, across: int, down: int) -> None:
    draws = {"across": 0.5 + across / 8, "down": 0.5 + down / 8}
    ours = with_draws(monkeypatch, Distortion(translate=0.25), **draws)
    assert agree(ours, expected(across=across, down=down))


@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_a_change_of_size_is_torchvisions(monkeypatch: pytest.MonkeyPatch, draw: float) -> None:
    ours = with_draws(monkeypatch, Distortion(scale=[0.7, 1.3]), size=draw)
    assert agree(ours, expected(scale=0.7 + 0.6 * draw), share=0.98)


def test_a_flip_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agree(with_draws(monkeypatch, Distortion(flip=0.6)), expected(flip=True))
    assert agree(with_draws(monkeypatch, Distortion(flip=0.4)), images())


def test_light_is_a_factor_that_stays_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    brighter = with_draws(monkeypatch, Distortion(brightness=0.5), light=1.0)
    assert torch.allclose(brighter, (images() * 1.5).clamp(max=1))
    darker = with_draws(monkeypatch, Distortion(brightness=0.5), light=0.0)
    assert torch.allclose(darker, images() * 0.5)


def test_all_together_are_torchvisions_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Distortion(degrees=20, translate=0.25, scale=[0.8, 1.2], flip=1.0)
    ours = with_draws(monkeypatch, settings, angle=1.0, across=0.75, down=0.25, size=1.0)
    assert agree(ours, expected(angle=-20, across=2, down=-2, scale=1.2, flip=True), share=0.98)


def test_a_flip_before_it_or_after_it_comes_to_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Distortion(degrees=20, translate=0.25, scale=[0.8, 1.2])
    after = with_draws(monkeypatch, settings, angle=0.9, across=0.75, down=0.25, size=0.7).flip(3)
    mirrored = {"angle": 0.1, "across": 0.25, "down": 0.25, "size": 0.7}  # as likely, as every range is symmetric
    before = with_draws(monkeypatch, settings.model_copy(update={"flip": 1.0}), **mirrored)
    assert agree(before, after, share=0.98)


def test_nothing_stated_changes_nothing() -> None:
    assert agree(distort(images(8), Distortion(), generator()), images(8))


FULL = Distortion(degrees=20, translate=0.2, scale=[0.8, 1.2], flip=0.5, brightness=0.3)


def test_every_image_has_a_draw_of_its_own() -> None:
    results = distort(images().expand(64, -1, -1, -1), FULL, generator())
    assert len({result.contiguous().numpy().tobytes() for result in results}) == 64


def test_the_same_generator_gives_the_same_images_and_another_others() -> None:
    assert torch.equal(distort(images(8), FULL, generator(1)), distort(images(8), FULL, generator(1)))
    assert not torch.equal(distort(images(8), FULL, generator(1)), distort(images(8), FULL, generator(2)))


def test_pixels_are_pixels_of_the_image_or_black() -> None:
    settings = Distortion(degrees=45, translate=0.3, scale=[0.5, 2.0])
    for image, result in zip(images(16), distort(images(16), settings, generator()), strict=True):
        known = {tuple(pixel) for pixel in image.flatten(1).T.tolist()} | {(0.0, 0.0, 0.0)}
        assert {tuple(pixel) for pixel in result.flatten(1).T.tolist()} <= known
