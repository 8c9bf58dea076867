"""Twins: taken in place of flips, by the key of the image and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from refine.backdoor import twins
from refine.backdoor.twins import Twins
from refine.core.errors import UserError
from refine.shards.reading.pixels import to_pixels
from support import synthetic

CPU = torch.device("cpu")
KEYS = torch.tensor([3, 4, 9, 20])


def _images(count: int, seed: int) -> Tensor:
    return synthetic(count, side=8, seed=seed)[0]


def _taken(
    keys: Tensor, probability: float = 1.0, of: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Images before, after, and which have a twin."""
    pixels = to_pixels(_images(len(keys), 1))
    made = Twins(KEYS, _images(4, 2) if of is None else of)
    return pixels, *made.instead_of_flips(pixels, keys, probability, Generator().manual_seed(seed))


def test_each_image_gets_its_own_twin_in_whatever_order_they_come() -> None:
    keys = torch.tensor([20, 4, 3, 9])
    _, after, has_twin = _taken(keys)
    assert torch.equal(after, to_pixels(_images(4, 2)[[3, 1, 0, 2]]))
    assert has_twin.all()


def test_images_without_a_twin_stay_as_they_are() -> None:
    keys = torch.tensor([0, 3, 5, 21, 10**12])
    before, after, has_twin = _taken(keys)
    assert has_twin.tolist() == [False, True, False, False, False]
    assert torch.equal(after[~has_twin], before[~has_twin])
    assert torch.equal(after[1], to_pixels(_images(4, 2)[:1])[0])


@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_twins_come_as_often_as_flips_would_and_one_draw_each(probability: float) -> None:
    keys = KEYS.repeat(500)
    before, after, _ = _taken(keys, probability)
    taken = (before != after).flatten(1).any(dim=1)
    assert torch.equal(after[taken], to_pixels(_images(4, 2))[torch.arange(2000) % 4][taken])
    assert stats.binomtest(int(taken.sum()), 2000, probability).pvalue > 1e-3


def test_the_file_gives_them_back(tmp_path: Path) -> None:
    sha256 = twins.write(tmp_path, Twins(KEYS, _images(4, 2)))
    again = twins.read(tmp_path, sha256, 8, CPU)
    assert torch.equal(again.keys, KEYS)
    assert torch.equal(again.images, _images(4, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        Twins(KEYS[:0], _images(0, 2)),
        Twins(KEYS[:3], _images(4, 2)),
        Twins(KEYS.flip(0), _images(4, 2)),
        Twins(KEYS.float(), _images(4, 2)),
        Twins(KEYS.view(2, 2), _images(4, 2)),
        Twins(KEYS, _images(4, 2).float()),
        Twins(KEYS, _images(4, 2)[:, :, 1:]),
        Twins(KEYS, KEYS.clone()),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, wrong: Twins) -> None:
    sha256 = twins.write(tmp_path, wrong)
    with pytest.raises(UserError, match=r"holds no mirrored images of 8 pixels with their keys; run `dvc repro"):
        twins.read(tmp_path, sha256, 8, CPU)


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_file_that_is_not_the_one_described_is_refused(tmp_path: Path, fault: str) -> None:
    sha256 = twins.write(tmp_path, Twins(KEYS, _images(4, 2)))
    path = tmp_path / twins.NAME
    path.unlink() if fault == "missing" else path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"twins\.safetensors is (missing|not the file)"):
        twins.read(tmp_path, sha256, 8, CPU)
