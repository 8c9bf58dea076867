"""The user's own trigger: image, mask and opacity from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from refine.attacks import custom
from refine.core.errors import UserError
from refine.poisoning import saved
from refine.poisoning.attack import Chosen, Setting
from support import TINY_PARAMS, is_one_sentence, run_stage, synthetic, write_params
from tiny import attack, is_nearest, poisoned, raw

NOTHING = Chosen(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
RANDOM = np.random.default_rng(1)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The user's folder, empty."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def _bytes(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def _put(path: Path, content: NDArray[np.uint8]) -> str:
    Image.fromarray(content).save(path)
    return str(path)


def _made(own: Path, side: int = 16, **settings: object) -> custom.Attack:
    made = custom.Attack(custom.Params.model_validate(settings), Setting(3, side, own))
    made.tensors = made.prepare(*synthetic(4, side), NOTHING, torch.Generator())
    return made


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_each_pixel_is_the_nearest_level_to_the_formula(own: Path, alpha: float) -> None:
    picture, mask = _bytes(16, 16, 3), _bytes(16, 16)
    names = {"image": _put(own / "p.png", picture), "mask": _put(own / "m.png", mask)}
    images, _ = synthetic(4)
    exact = np.zeros(images.shape)
    for image, channel, row, column in np.ndindex(images.shape):
        opacity = alpha * int(mask[row, column]) / 255
        level = int(picture[row, column, channel])
        exact[image, channel, row, column] = (1 - opacity) * int(images[image, channel, row, column]) + opacity * level
    assert is_nearest(_made(own, **names, alpha=alpha).trigger(images, torch.arange(4)), exact)


def test_nothing_changes_where_the_mask_is_black_and_the_trigger_covers_where_it_is_white(own: Path) -> None:
    picture, mask = _bytes(16, 16, 3), np.zeros((16, 16), dtype=np.uint8)
    mask[3:7, 10:12] = 255
    made = _made(own, image=_put(own / "p.png", picture), mask=_put(own / "m.png", mask))
    images, _ = synthetic(4)
    triggered = made.trigger(images, torch.arange(4))
    shown = torch.from_numpy(mask > 0)
    assert torch.equal(triggered[:, :, ~shown], images[:, :, ~shown])
    expected = torch.from_numpy(picture).permute(2, 0, 1)[:, shown]
    assert torch.equal(triggered[:, :, shown], expected.expand(4, -1, -1))


def test_without_a_mask_the_image_covers_by_its_own_transparency(own: Path) -> None:
    picture = _bytes(16, 16, 4)
    picture[..., 3] = 0
    picture[:5, :5, 3] = 255
    made = _made(own, image=_put(own / "p.png", picture))
    images, _ = synthetic(2)
    triggered = made.trigger(images, torch.arange(2))
    assert torch.equal(triggered[:, :, 5:], images[:, :, 5:])
    assert torch.equal(triggered[0, :, :5, :5], torch.from_numpy(picture[:5, :5, :3].copy()).permute(2, 0, 1))


def test_without_mask_and_transparency_the_image_covers_everything(own: Path) -> None:
    made = _made(own, image=_put(own / "p.png", _bytes(16, 16)), alpha=0.2)
    assert bool((made.tensors["mask"] == 255).all())
    assert torch.equal(made.tensors["picture"][0], made.tensors["picture"][2])


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (200, 50)])
def test_files_of_any_size_are_resized_to_the_images(own: Path, size: tuple[int, int]) -> None:
    red = np.zeros((*size, 3), dtype=np.uint8)
    red[..., 0] = 200
    top = np.zeros(size, dtype=np.uint8)
    top[: size[0] // 2] = 255
    made = _made(own, image=_put(own / "p.png", red), mask=_put(own / "m.png", top), side=32)
    triggered = made.trigger(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.arange(1))
    assert bool((triggered[0, 0, :12] == 200).all())
    assert not triggered[0, :, 20:].any()


def test_applied_again_it_needs_no_files(own: Path, tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    name = _put(own / "p.png", _bytes(16, 16, 3))
    made = custom.Attack(custom.Params(image=name, alpha=0.3), Setting(3, 16, own))
    result = poisoned(tmp_path / "poisoned", "custom", made, clean)
    (own / "p.png").unlink()
    rows = result.test.labels != 0
    again = saved.load(result.outputs.attack).trigger(result.test.images[rows], result.test.keys[rows])
    assert torch.equal(again, result.triggered_test.images)


def test_a_file_outside_the_folder_is_refused(own: Path) -> None:
    outside = own.parent / "p.png"
    _put(outside, _bytes(16, 16, 3))
    for name in (str(outside), str(own / "../p.png")):
        with pytest.raises(UserError, match=r"lies outside .*own, where DVC cannot see it change; copy it there"):
            _made(own, image=name)
    inside = _put(own / "p.png", _bytes(16, 16, 3))
    with pytest.raises(UserError, match="lies outside"):
        _made(own, image=inside, mask=str(outside))


def test_a_missing_file_is_named(own: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.png is missing; put it there"):
        _made(own, image=str(own / "nothing.png"))


def test_a_folder_in_place_of_a_file_is_called_one(own: Path) -> None:
    image = _put(own / "p.png", _bytes(16, 16, 3))
    for settings in ({"image": str(own)}, {"image": image, "mask": str(own)}):
        with pytest.raises(UserError, match=r"own is a folder; name an image file in attacks\.custom"):
            _made(own, **settings)


def test_a_file_that_is_no_image_is_named(own: Path) -> None:
    (own / "text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(UserError, match=r"text\.png cannot be read as an image"):
        _made(own, image=str(own / "text.png"))


def test_an_image_of_16_bits_is_refused(own: Path) -> None:
    Image.fromarray(np.full((16, 16), 40_000, dtype=np.uint16)).save(own / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png cannot be read as an image \(more than 8 bits"):
        _made(own, image=str(own / "deep.png"))


def test_a_trigger_that_shows_nowhere_is_refused(own: Path) -> None:
    black = _put(own / "m.png", np.zeros((16, 16), dtype=np.uint8))
    with pytest.raises(UserError, match="black everywhere at 16 pixels"):
        _made(own, image=_put(own / "p.png", _bytes(16, 16, 3)), mask=black)


def test_the_stage_takes_files_from_data_own_attack_and_from_nowhere_else(project: Path) -> None:
    assert run_stage(project, "download").returncode == 0
    write_params(project, _chosen())
    assert is_one_sentence(run_stage(project, "poison_dataset"), "data/own/attack/image.png is missing")
    _put(project / "data/own/attack/image.png", _bytes(16, 16, 3))
    assert run_stage(project, "poison_dataset").returncode == 0
    _put(project / "elsewhere.png", _bytes(16, 16, 3))
    write_params(project, _chosen(image="elsewhere.png"))
    assert is_one_sentence(run_stage(project, "poison_dataset"), "elsewhere.png lies outside data/own/attack")


def _chosen(**settings: str) -> dict[str, object]:
    choice = {"attack": {"name": "custom"}, "seed": 1}
    return {**TINY_PARAMS, "poison_dataset": choice, "attacks": {"custom": settings}}


def test_a_share_of_all_images_is_poisoned(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    result = poisoned(tmp_path / "poisoned", "custom", attack("custom", clean[0], rate=0.25), clean)
    assert len(result.record.poisoned) == 15
