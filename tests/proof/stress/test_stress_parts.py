"""The parts of a user's images: disjoint, drawn by the seed, refused where they are too small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refine.core.errors import UserError
from refine.proof.stress.params import Parts, StressParams, default_plants
from refine.proof.stress.parts import divided, sum_of
from stressed import images

PARTS = Parts(planting=0.25, defending=0.5, measuring=0.25, least=10)


def test_no_image_is_in_two_parts(tmp_path: Path) -> None:
    split = images(tmp_path / "images", 80)
    made = divided(split, PARTS, seed=1)
    keys = [part.keys.tolist() for part in (made.planting, made.defending, made.measuring)]
    assert [len(each) for each in keys] == [20, 40, 20]
    assert sorted(key for part in keys for key in part) == split.keys.tolist()
    row = made.measuring.keys.tolist()[3]
    assert torch.equal(made.measuring.images[3], split.images[row])
    assert made.measuring.labels[3] == split.labels[row]


def test_the_seed_alone_draws_them(tmp_path: Path) -> None:
    split = images(tmp_path / "images", 80)
    first, same, other = (divided(split, PARTS, seed).planting.keys.tolist() for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize(("least_to_defend", "needed"), [(0, 120), (100, 200)])
def test_too_few_images_are_refused_with_the_number_that_is_needed(
    tmp_path: Path, least_to_defend: int, needed: int
) -> None:
    split = images(tmp_path / "images", 80)
    parts = PARTS.model_copy(update={"least": 30})
    with pytest.raises(UserError, match=f"needs {needed} images or more, and there are 80"):
        divided(split, parts, 1, least_to_defend)


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="their sum 1 or less"):
        Parts(planting=0.4, defending=0.4, measuring=0.4)
    assert Parts(planting=0.1, defending=0.8, measuring=0.1).least == StressParams().parts.least


def test_other_images_have_another_sum(tmp_path: Path) -> None:
    split = images(tmp_path / "images", 24)
    assert sum_of(split) != sum_of(split.subset(split.keys > 0))
    assert sum_of(split) == sum_of(images(tmp_path / "again", 24))


@pytest.mark.parametrize("side", [16, 32, 96, 224])
def test_the_default_plants_are_three_kinds_for_images_of_any_size(side: int) -> None:
    plants = default_plants(side)
    assert [plant.attack for plant in plants.values()] == ["badnets", "blended", "wanet"]
