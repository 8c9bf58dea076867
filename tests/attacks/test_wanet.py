"""WaNet against an independent, slow reading of the published formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refine.attacks import wanet
from refine.core.errors import UserError
from refine.core.params import ParamsFile
from refine.poisoning import saved
from refine.poisoning.attack import Setting
from support import PROJECT, synthetic
from tiny import attack, is_nearest, poisoned, raw, ready

Floats = NDArray[np.float64]


def _cubic(distance: float) -> float:
    """Weight of a point at this distance in bicubic interpolation (Keys, a = -0.75)."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def _enlarged(noise: Floats, side: int) -> Floats:
    """A field of k x k points on side x side, corner on corner, borders repeated."""
    k = len(noise)
    field = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            y, x = row * (k - 1) / (side - 1), column * (k - 1) / (side - 1)
            for i in range(int(y) - 1, int(y) + 3):
                for j in range(int(x) - 1, int(x) + 3):
                    value = noise[min(max(i, 0), k - 1), min(max(j, 0), k - 1)]
                    field[row, column] += value * _cubic(y - i) * _cubic(x - j)
    return field


def _grid(seed: int, side: int, k: int, strength: float) -> Floats:
    """G from the attack's first draw: along x, then along y."""
    noise = 2 * torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(seed)).double().numpy()[0] - 1
    noise = noise / np.abs(noise).mean()
    grid = np.zeros((side, side, 2))
    fields = [_enlarged(along, side) for along in noise]
    for row in range(side):
        for column in range(side):
            for axis, place in enumerate((column, row)):
                own = -1 + 2 * place / (side - 1)
                grid[row, column, axis] = min(max(own + strength * fields[axis][row, column] / side, -1), 1)
    return grid


def _sampled(image: Floats, grid: Floats) -> Floats:
    """Bilinear sampling of [3, h, h] at (x, y) in [-1, 1], corners being the centers of the outermost pixels."""
    side = image.shape[1]
    warped = np.zeros_like(image)
    for row in range(side):
        for column in range(side):
            x, y = (grid[row, column] + 1) / 2 * (side - 1)
            for i in (int(y), int(y) + 1):
                for j in (int(x), int(x) + 1):
                    if i < side and j < side:
                        warped[:, row, column] += image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return warped


@pytest.mark.parametrize(
    ("side", "k", "strength"), [(16, 4, 0.5), (21, 4, 2.0), (16, 16, 0.5), (16, 1, 0.5), (17, 2, 1)]
)
def test_the_grid_is_the_formula(side: int, k: int, strength: float) -> None:
    made = ready("wanet", side, seed=5, k=k, strength=strength)
    assert np.allclose(made.tensors["grid"].numpy(), _grid(5, side, k, strength), atol=1e-5)


def test_the_released_variant_jitters_each_pixel_and_has_no_noise_samples() -> None:
    made = ready("wanet", 21, seed=5, variant="released")
    assert np.allclose(made.tensors["grid"].numpy(), _grid(5, 21, 21, 0.5), atol=1e-5)
    assert len(made.choose(torch.arange(1_000) % 10, torch.Generator()).cover) == 0


def test_a_variant_only_changes_defaults() -> None:
    named = wanet.Params.model_validate({"variant": "released", "k": 8, "strength": 0.7})
    assert (named.k, named.strength, named.noise_ratio) == (8, 0.7, 0.0)
    assert wanet.Params.model_validate({"variant": "paper"}) == wanet.Params()
    again = wanet.Params.model_validate(wanet.Params.model_validate({"variant": "released"}).model_dump())
    assert (again.k, again.noise_ratio) == (None, 0.0)


def test_the_preset_of_the_released_code_takes_the_released_variant() -> None:
    chosen = ParamsFile(PROJECT / "presets/paper.yaml").section("attacks.wanet", wanet.Params)
    assert (chosen.k, chosen.strength, chosen.noise_ratio) == (None, 0.5, 0.0)


@pytest.mark.parametrize("settings", [{}, {"k": 16}, {"strength": 3.0}])
def test_each_pixel_is_sampled_where_the_grid_says(settings: dict[str, float]) -> None:
    images, _ = synthetic(3, 16)
    made = ready("wanet", 16, **settings)
    grid = made.tensors["grid"].double().numpy()
    exact = np.stack([_sampled(image, grid) for image in images.double().numpy()])
    assert is_nearest(made.trigger(images, torch.arange(3)), exact)


def test_noise_samples_are_warped_by_the_grid_and_noise_of_their_own() -> None:
    images = synthetic(1, 16)[0].expand(4, -1, -1, -1)
    made = ready("wanet", 16)
    warped = made.cover(images, torch.tensor([0, 1, 7, 1]))
    assert torch.equal(warped[1], warped[3])
    assert not torch.equal(warped[0], warped[1])
    for number, result in ((0, warped[0]), (7, warped[2])):
        generator = torch.Generator().manual_seed(int(made.tensors["noise_seed"]) + number)
        own = 2 * torch.rand(16, 16, 2, generator=generator).double().numpy() - 1
        grid = np.clip(made.tensors["grid"].double().numpy() + own / 16, -1, 1)
        assert is_nearest(result, _sampled(images[0].double().numpy(), grid))


def test_pixels_move_by_a_quarter_of_a_pixel_on_average_when_each_has_its_own_noise() -> None:
    """Spec 2.4: with k = h shifts stay below 0.48 pixels, 0.24 on average."""
    moved = _moved(ready("wanet", 32, k=32).tensors["grid"])
    assert float(moved.mean()) == pytest.approx(0.24, abs=0.01)
    assert float(moved.max()) < 0.5


def test_the_warp_of_four_points_is_smooth() -> None:
    """Spec 2.4: with k = 4 shifts are 0.17 pixels on average and hardly above half a pixel."""
    moved = torch.stack([_moved(ready("wanet", 32, seed=seed).tensors["grid"]) for seed in range(20)])
    assert float(moved.mean()) == pytest.approx(0.17, abs=0.02)
    assert float(moved.max()) < 0.65
    assert float(moved[:, 1:-1, 1:-1].diff(dim=2).abs().max()) < 0.15  # the edges are clipped


def _moved(grid: Tensor) -> Tensor:
    """How far each pixel moves along each axis, in pixels, [side, side, 2]."""
    side = len(grid)
    places = torch.arange(side) * 2 / (side - 1) - 1
    own = torch.stack([places.expand(side, side), places.view(-1, 1).expand(side, side)], dim=2)
    return (grid - own).abs() * (side - 1) / 2


def test_training_and_test_share_one_grid_which_is_saved(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    result = poisoned(tmp_path / "poisoned", "wanet", attack("wanet", clean[0]), clean)
    grid = saved.load(result.outputs.attack).tensors["grid"].double().numpy()
    for row in result.record.poisoned:
        warped = _sampled(result.train.images[row].double().numpy(), grid)
        assert is_nearest(result.poisoned_train.images[row], warped)
    for key, image in zip(result.triggered_test.keys.tolist(), result.triggered_test.images, strict=True):
        assert is_nearest(image, _sampled(result.test.images[key].double().numpy(), grid))


@pytest.mark.parametrize(
    ("rate", "ratio", "poison", "noise"), [(0.1, 2, 100, 200), (0.1, 0, 100, 0), (0.4, 1.5, 400, 600)]
)
def test_noise_samples_are_counted_from_the_poisoned_ones(rate: float, ratio: float, poison: int, noise: int) -> None:
    made = ready("wanet", 16, rate=rate, noise_ratio=ratio)
    rows = made.choose(torch.arange(1_000) % 10, torch.Generator().manual_seed(1))
    assert (len(rows.poisoned), len(rows.cover)) == (poison, noise)
    assert len({*rows.poisoned.tolist(), *rows.cover.tolist()}) == poison + noise


def test_noise_samples_keep_their_label(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    result = poisoned(tmp_path / "poisoned", "wanet", attack("wanet", clean[0]), clean)
    assert len(result.record.cover) == 12
    assert all(result.poisoned_train.labels[row] == result.train.labels[row] for row in result.record.cover)


def test_more_noise_samples_than_images_are_refused() -> None:
    made = ready("wanet", 16, rate=0.4)
    with pytest.raises(UserError, match="400 poisoned and 800 cover images are more than the 1000 training images"):
        made.choose(torch.arange(1_000) % 10, torch.Generator())


def test_a_warp_finer_than_the_image_is_refused() -> None:
    wanet.Attack(wanet.Params(k=16), Setting(10, 16))
    with pytest.raises(UserError, match=r"17 x 17 points is finer than images of 16 pixels; lower attacks.wanet.k"):
        wanet.Attack(wanet.Params(k=17), Setting(10, 16))
