"""Augmentation has torchvision's distributions, draws once per image, and repeats with its generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms import functional as theirs

from refine.training.augment import _boxes, _matrix, augment
from refine.training.recipe import Augment, Jitter

SEED = 20
DRAWS = 3000
ALL = Augment(crop_scale=0.5, shift=3, flip=0.5, grayscale=0.5)


def generator(seed: int = SEED) -> Generator:
    """A generator with a fixed seed."""
    return Generator().manual_seed(seed)


def random_images(count: int, side: int = 16) -> Tensor:
    """Images in [0, 1]."""
    return torch.rand((count, 3, side, side), generator=generator(1))


def frequency_is(count: int, draws: int, probability: float) -> bool:
    """Whether so many hits in so many draws go with the probability."""
    return bool(stats.binomtest(count, draws, probability).pvalue > 1e-3)


# -- crops


@pytest.mark.parametrize("side", [7, 16, 32])
def test_a_crop_is_torchvisions_for_the_same_box(side: int) -> None:
    random = np.random.RandomState(side)
    for _ in range(25):
        tall, wide = (int(value) for value in random.randint(1, side + 1, 2))
        top, left = int(random.randint(0, side - tall + 1)), int(random.randint(0, side - wide + 1))
        image = torch.from_numpy(random.rand(3, side, side))
        rows = _matrix(torch.tensor([float(top)]).double(), torch.tensor([float(tall)]).double(), side)[0]
        columns = _matrix(torch.tensor([float(left)]).double(), torch.tensor([float(wide)]).double(), side)[0]
        ours = rows @ image @ columns.T
        for antialias in (False, True):  # a crop is only ever enlarged
            expected = theirs.resized_crop(image, top, left, tall, wide, [side, side], antialias=antialias)
            assert torch.allclose(ours, expected, rtol=0, atol=1e-5)


def test_the_whole_image_as_a_crop_is_the_image() -> None:
    matrix = _matrix(torch.zeros(2), torch.full((2,), 9.0), 9)
    assert torch.equal(matrix, torch.eye(9).expand(2, 9, 9))


def their_boxes(scale: float, side: int) -> np.ndarray:
    """Top, left, height and width of torchvision's crops."""
    torch.manual_seed(SEED)
    image = torch.zeros(3, side, side)
    return np.array([RandomResizedCrop.get_params(image, [scale, 1.0], [3 / 4, 4 / 3]) for _ in range(DRAWS)])


def our_boxes(scale: float, side: int) -> np.ndarray:
    """Likewise, of ours."""
    return torch.stack(_boxes(torch.zeros(DRAWS, side, 3, side), scale, generator()), dim=1).numpy()


@pytest.mark.parametrize(("scale", "side"), [(0.8, 32), (0.3, 32), (0.8, 64)])
def test_crops_are_distributed_as_torchvisions(scale: float, side: int) -> None:
    ours, others = our_boxes(scale, side), their_boxes(scale, side)
    for measure in (
        lambda box: box[:, 2] * box[:, 3],  # area
        lambda box: box[:, 3] / box[:, 2],  # aspect
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 0] + box[:, 2],  # bottom
        lambda box: box[:, 1] + box[:, 3],  # right
    ):
        assert stats.ks_2samp(measure(ours), measure(others)).pvalue > 1e-3
    whole = [int((box[:, 2:] == side).all(axis=1).sum()) for box in (ours, others)]
    assert stats.fisher_exact([[whole[0], DRAWS - whole[0]], [whole[1], DRAWS - whole[1]]]).pvalue > 1e-3


def test_the_comparison_of_distributions_sees_another_scale() -> None:
    ours, others = our_boxes(0.75, 32), their_boxes(0.8, 32)
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], others[:, 2] * others[:, 3]).pvalue < 1e-6


@pytest.mark.parametrize("scale", [0.01, 0.3, 0.8, 0.99])
def test_a_crop_lies_inside_the_image_on_whole_pixels(scale: float) -> None:
    top, left, tall, wide = our_boxes(scale, 16).T
    for start, length in ((top, tall), (left, wide)):
        assert (start >= 0).all()
        assert (length >= 1).all()
        assert (start + length <= 16).all()
        assert (start == np.floor(start)).all()


# -- flips, graying, shifts


@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_flips_come_as_often_as_stated_and_only_mirror(probability: float) -> None:
    image = random_images(1)
    flipped = augment(image.expand(2000, -1, -1, -1), Augment(flip=probability), generator())
    mirrored = (flipped == image.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(flipped[~mirrored], image.expand(int((~mirrored).sum()), -1, -1, -1))
    assert frequency_is(int(mirrored.sum()), 2000, probability)


@pytest.mark.parametrize("settings", [Augment(flip=0.5), Augment(flip=0.5, shift=2, grayscale=0.2)])
def test_images_that_no_flip_may_reach_are_not_mirrored_and_the_others_are_as_ever(settings: Augment) -> None:
    image = random_images(1)
    images = image.expand(400, -1, -1, -1)
    unflipped = torch.arange(400) % 3 == 0
    result = augment(images, settings, generator(), unflipped)
    as_ever = augment(images, settings, generator())
    without = augment(images, settings.model_copy(update={"flip": 1e-9}), generator())
    assert torch.equal(result[~unflipped], as_ever[~unflipped])
    assert torch.equal(result[unflipped], without[unflipped])
    assert not torch.equal(result[unflipped], as_ever[unflipped])


@pytest.mark.parametrize("probability", [0.2, 1.0])
def test_graying_comes_as_often_as_stated_and_is_torchvisions(probability: float) -> None:
    image = random_images(1)
    result = augment(image.expand(2000, -1, -1, -1), Augment(grayscale=probability), generator())
    expected = theirs.rgb_to_grayscale(image, num_output_channels=3)
    changed = (result != image).flatten(1).any(dim=1)
    assert torch.allclose(result[changed], expected.expand(int(changed.sum()), -1, -1, -1), rtol=0, atol=1e-6)
    assert torch.equal(result[~changed], image.expand(int((~changed).sum()), -1, -1, -1))
    assert frequency_is(int(changed.sum()), 2000, probability)


def test_shifts_are_uniform_to_all_sides() -> None:
    dot = torch.zeros(1, 3, 9, 9)
    dot[:, :, 4, 4] = 1
    shifted = augment(dot.expand(5000, -1, -1, -1), Augment(shift=2), generator())
    places = shifted[:, 0].flatten(1).argmax(dim=1)
    assert torch.equal(shifted.sum(dim=(2, 3)), torch.ones(5000, 3))
    found, counts = places.unique(return_counts=True)
    assert found.tolist() == [9 * y + x for y in range(2, 7) for x in range(2, 7)]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_what_a_shift_brings_in_from_outside_is_black() -> None:
    image = random_images(1, side=8) + 0.5
    bordered = torch.nn.functional.pad(image[0], (3, 3, 3, 3))
    windows = {bordered[:, y : y + 8, x : x + 8].contiguous().numpy().tobytes() for y in range(7) for x in range(7)}
    for shifted in augment(image.expand(200, -1, -1, -1), Augment(shift=3), generator()):
        assert shifted.contiguous().numpy().tobytes() in windows


# -- colors


def their_jitter(image: Tensor, settings: Jitter, draws: Generator) -> Tensor:
    """One image [1, 3, H, W] with torchvision's own changes, of which only the random numbers are ours."""
    chosen, *rest = torch.rand((9, 1), generator=draws).flatten()
    if chosen >= settings.probability:
        return image
    brightness, contrast, saturation, hue = (2 * float(value) - 1 for value in rest[:4])
    changes = (
        lambda image: theirs.adjust_brightness(image, 1 + settings.brightness * brightness),
        lambda image: theirs.adjust_contrast(image, 1 + settings.contrast * contrast),
        lambda image: theirs.adjust_saturation(image, 1 + settings.saturation * saturation),
        lambda image: theirs.adjust_hue(image, settings.hue * hue),
    )
    for number in torch.stack(rest[4:]).argsort().tolist():
        image = changes[number](image)
    return image


@pytest.mark.parametrize("settings", [Jitter(), Jitter(probability=1, brightness=1, contrast=1, saturation=1, hue=0.5)])
@pytest.mark.parametrize("seed", range(10))
def test_a_change_of_colors_is_torchvisions(settings: Jitter, seed: int) -> None:
    image = random_images(1)
    ours = augment(image, Augment(jitter=settings), generator(seed))
    assert torch.allclose(ours, their_jitter(image, settings, generator(seed)), rtol=0, atol=1e-5)


def test_colors_without_a_hue_have_none_to_turn() -> None:
    gray = random_images(1)[:, :1].expand(20, 3, -1, -1)
    turned = augment(gray, Augment(jitter=Jitter(brightness=0, contrast=0, saturation=1, hue=0.5)), generator())
    assert torch.allclose(turned, gray, rtol=0, atol=2e-4)  # the published weights of gray add up to 0.9999


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation", "hue"])
def test_changes_of_colors_are_distributed_as_torchvisions(change: str) -> None:
    strength = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, change: 0.3}
    settings = Jitter(probability=1, **strength)
    image = torch.tensor([[0.5, 0.4], [0.4, 0.3], [0.35, 0.45]]).view(1, 3, 2, 1)  # nothing is clipped
    ours = augment(image.expand(2000, -1, -1, -1), Augment(jitter=settings), generator())
    torch.manual_seed(SEED)
    transform = ColorJitter(**strength)
    others = torch.cat([transform(image) for _ in range(2000)])
    for channel in range(3):
        first, second = ours[:, channel, 0, 0].numpy(), others[:, channel, 0, 0].numpy()
        assert stats.ks_2samp(first.round(5), second.round(5)).pvalue > 1e-3


def test_colors_are_changed_as_often_as_stated_in_every_order() -> None:
    image = random_images(1, side=4)
    settings = Jitter(probability=0.8)
    changed = (augment(image.expand(2000, -1, -1, -1), Augment(jitter=settings), generator()) != image).flatten(1)
    assert frequency_is(int(changed.any(dim=1).sum()), 2000, 0.8)
    full = Jitter(probability=1, brightness=0.9, contrast=0.9, saturation=0.9, hue=0.4)
    torch.manual_seed(SEED)
    transform = ColorJitter(0.9, 0.9, 0.9, 0.4)
    ours = augment(image.expand(2000, -1, -1, -1), Augment(jitter=full), generator())
    others = torch.cat([transform(image) for _ in range(2000)])
    for measure in (lambda images: images.mean(dim=(1, 2, 3)), lambda images: images.flatten(1).std(dim=1)):
        assert stats.ks_2samp(measure(ours).numpy(), measure(others).numpy()).pvalue > 1e-3


# -- all together


def reference(image: Tensor, settings: Augment, seed: int) -> Tensor:
    """One image at a time with torchvision, of which only the random numbers are ours."""
    draws = generator(seed)
    side = image.shape[-1]
    gray = torch.rand(1, generator=draws) < settings.grayscale
    top, left, tall, wide = (int(value) for value in _boxes(image.transpose(1, 2), settings.crop_scale, draws))
    image = theirs.resized_crop(image, top, left, tall, wide, [side, side], antialias=False)
    down, right = (int(torch.randint(-settings.shift, settings.shift + 1, (1, 1), generator=draws)) for _ in "yx")
    image = theirs.pad(image, [settings.shift] * 4)
    image = theirs.crop(image, settings.shift + down, settings.shift + right, side, side)
    if torch.rand(1, generator=draws) < settings.flip:
        image = theirs.hflip(image)
    if settings.jitter:
        image = their_jitter(image, settings.jitter, draws)
    if gray:
        image = theirs.rgb_to_grayscale(image, num_output_channels=3)
    return image


def test_cutout_blackens_a_square_around_a_pixel_and_leaves_the_rest() -> None:
    images = random_images(DRAWS, 7) + 0.1
    cut = augment(images, Augment(cutout=3), generator())
    black = (cut == 0).all(dim=1)
    assert torch.equal(cut, images * ~black.unsqueeze(1))
    tall, wide = black.any(dim=2), black.any(dim=1)
    assert torch.equal(black, tall.unsqueeze(2) & wide.unsqueeze(1))
    for covered in (tall, wide):  # 3 pixels, but 2 around the first or last one
        assert (
            stats.chisquare(covered.sum(dim=1).bincount(minlength=4)[2:], [DRAWS * 2 / 7, DRAWS * 5 / 7]).pvalue > 1e-3
        )
        middle = (covered * torch.arange(7)).sum(dim=1) / covered.sum(dim=1)
        assert stats.chisquare(middle.unique(return_counts=True)[1]).pvalue > 1e-3


@pytest.mark.parametrize("jitter", [None, Jitter()])
@pytest.mark.parametrize("seed", range(12))
def test_all_changes_together_are_those_of_torchvision_one_after_the_other(seed: int, jitter: Jitter | None) -> None:
    image = random_images(1)
    everything = ALL.model_copy(update={"jitter": jitter})
    ours = augment(image, everything, generator(seed))
    assert torch.allclose(ours, reference(image, everything, seed), rtol=0, atol=1e-5)


def test_every_image_has_a_draw_of_its_own() -> None:
    results = augment(random_images(1).expand(64, -1, -1, -1), ALL, generator())
    assert len({result.contiguous().numpy().tobytes() for result in results}) > 55


def test_the_same_generator_gives_the_same_images_and_another_others() -> None:
    images = random_images(16)
    assert torch.equal(augment(images, ALL, generator(1)), augment(images, ALL, generator(1)))
    assert not torch.equal(augment(images, ALL, generator(1)), augment(images, ALL, generator(2)))


def test_torchs_global_random_state_is_neither_read_nor_changed() -> None:
    images = random_images(4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, ALL, generator())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(images, ALL, generator()), first)


def test_settings_that_are_off_change_nothing() -> None:
    images = random_images(4)
    assert torch.equal(augment(images, Augment(), generator()), images)


def test_pixels_stay_in_their_range_and_the_input_as_it_was() -> None:
    images = random_images(64)
    kept = images.clone()
    result = augment(images, ALL.model_copy(update={"jitter": Jitter(probability=1)}), generator())
    assert torch.equal(images, kept)
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1 + 1e-6
