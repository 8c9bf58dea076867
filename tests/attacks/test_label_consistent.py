"""Both clean-label attacks, `label_consistent` and `clean_label`, against a slow reading of the published formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from refine.attacks import clean_label, label_consistent
from refine.backdoor import attacker_augmentation
from refine.backdoor.params import TrainBackdoorParams
from refine.core.errors import UserError
from refine.core.params import ParamsFile
from refine.poisoning.adversarial.clean_label import CleanLabelAttack
from refine.poisoning.attack import Chosen, Setting
from refine.shards.reading.tensors import load_tensors
from support import PROJECT, synthetic
from tiny import Poisoned, attack, classifier_folder, poisoned, raw

TEXTURE = [[247, 241, 130], [106, 201, 92], [153, 163, 20]]
MOTIF = [[0, 0, 255], [0, 255, 0], [255, 0, 255]]
PLAIN = {"steps": 0}
Corner = tuple[range, range]
FLUSH: list[Corner] = [(rows, columns) for rows in (range(3), range(29, 32)) for columns in (range(3), range(29, 32))]
AWAY: list[Corner] = [
    (rows, columns) for rows in (range(1, 4), range(29, 32)) for columns in (range(1, 4), range(29, 32))
]


def _ready(module: Any, side: int = 32, classes: int = 10, **settings: Any) -> CleanLabelAttack[Any]:
    """An attack whose images are not perturbed, for ten images of the target class."""
    params = module.Params.model_validate({"perturbation": PLAIN, **settings})
    made: CleanLabelAttack[Any] = module.Attack(params, Setting(classes, side))
    images, _ = synthetic(10, side)
    rows = torch.arange(10)
    chosen = Chosen(rows, rows[:0])
    made.tensors = made.prepare(images, torch.zeros(10, dtype=torch.int64), chosen, torch.Generator().manual_seed(1))
    return made


def _patched_slowly(image: Tensor, values: list[list[int]], corners: list[Corner]) -> Tensor:
    changed = image.clone()
    for rows, columns in corners:
        for i in range(3):
            for j in range(3):
                down = 2 - i if rows[0] < 10 else i
                across = 2 - j if columns[0] < 10 else j
                changed[:, rows[i], columns[j]] = values[down][across]
    return changed


@pytest.mark.parametrize(
    ("module", "settings", "values", "corners"),
    [
        (label_consistent, {}, TEXTURE, FLUSH[3:]),
        (label_consistent, {"corners": 4}, TEXTURE, FLUSH),
        (label_consistent, {"corners": 4, "pattern": "grid"}, MOTIF, FLUSH),
        (clean_label, {}, MOTIF, AWAY),
        (clean_label, {"corners": 1}, MOTIF, AWAY[3:]),
    ],
)
def test_on_32_pixels_the_patches_are_the_published_ones(
    module: Any, settings: dict[str, Any], values: list[list[int]], corners: list[Corner]
) -> None:
    images, _ = synthetic(6, side=32)
    made = _ready(module, **settings)
    for image, changed in zip(images, made.trigger(images, torch.arange(6)), strict=True):
        assert torch.equal(changed, _patched_slowly(image, values, corners))


@pytest.mark.parametrize("module", [label_consistent, clean_label])
def test_without_perturbation_training_images_are_patched_like_test_images(module: Any) -> None:
    images, _ = synthetic(10, side=32)
    made = _ready(module)
    assert torch.equal(made.poison(images[3:5], torch.tensor([3, 4])), made.trigger(images[3:5], torch.arange(2)))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """`label_consistent` with a source model of a moment, half of class 2 poisoned."""
    folder = tmp_path_factory.mktemp("made")
    clean = raw(folder / "raw", images=90)
    made = attack("label_consistent", clean[0], rate=0.5, target=2, start_from_source=True)
    return poisoned(folder / "poisoned", "label_consistent", made, clean)


def test_half_of_the_target_class_is_poisoned_and_keeps_its_label(result: Poisoned) -> None:
    rows = torch.tensor(result.record.poisoned)
    assert len(rows) == 15
    assert set(result.train.labels[rows].tolist()) == {2}
    assert torch.equal(result.poisoned_train.labels, result.train.labels)
    assert result.record.rate_of_classes == 0.5
    assert result.record.rate_of_dataset == round(15 / 90, 6)


def test_poisoned_images_move_by_at_most_eight_levels_outside_the_patch(result: Poisoned) -> None:
    rows = torch.tensor(result.record.poisoned)
    change = (result.poisoned_train.images[rows].int() - result.train.images[rows].int()).abs()
    change[:, :, 14:, 14:] = 0
    assert 0 < int(change.max()) <= 8
    assert bool(change.flatten(1).any(dim=1).all())


def test_test_images_are_patched_and_not_perturbed(result: Poisoned) -> None:
    rows = torch.isin(result.test.keys, result.triggered_test.keys)
    change = result.triggered_test.images.int() - result.test.images[rows].int()
    assert bool(change[:, :, 14:, 14:].any())
    change[:, :, 14:, 14:] = 0
    assert not change.any()


def test_the_source_models_weights_are_left_for_the_training_where_that_is_wanted(result: Poisoned) -> None:
    part = attacker_augmentation.read(result.outputs.attack / "training")
    assert part.initial_weights_sha256 is not None
    weights = load_tensors(
        result.outputs.attack / "training" / attacker_augmentation.WEIGHTS, part.initial_weights_sha256, ""
    )
    assert weights["head.weight"].shape == (3, 64)


def test_the_preset_of_the_released_code_goes_on_from_them_in_the_network_that_they_are_of() -> None:
    preset = ParamsFile(PROJECT / "presets/paper.yaml")
    params = preset.section("attacks.label_consistent", label_consistent.Params)
    assert params.start_from_source
    assert params.source.network == preset.section("train_backdoor", TrainBackdoorParams).network
    assert params == label_consistent.Params(start_from_source=True)  # the rest is published as it is


def test_they_are_not_left_otherwise(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    made = poisoned(tmp_path / "made", "clean_label", attack("clean_label", clean[0], rate=0.5), clean)
    assert attacker_augmentation.read(made.outputs.attack / "training").initial_weights_sha256 is None


def test_the_users_own_source_model_is_attacked(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    of = classifier_folder(tmp_path / "own/benign")
    source = {"folder": str(tmp_path / "own/benign")}
    params = clean_label.Params.model_validate({"rate": 0.5, "source": source})
    made = clean_label.Attack(params, Setting(3, 16, tmp_path / "own"))
    poisoned(tmp_path / "made", "clean_label", made, clean)
    rows = made.choose(clean[0].labels, torch.Generator().manual_seed(1)).poisoned
    before, after = clean[0].images[rows], made.tensors["perturbed"]
    own = [float(of(images / 255).softmax(dim=1)[:, 0].mean()) for images in (before, after)]
    assert own[1] < own[0]


def test_the_papers_values_are_the_defaults() -> None:
    lc, cl = label_consistent.Params().model_dump(), clean_label.Params().model_dump()
    assert lc["perturbation"] == {"epsilon": 8.0, "step": 1.5, "steps": 100, "random_start": False}
    assert cl["perturbation"] == {"epsilon": 8.0, "step": 2.0, "steps": 4, "random_start": True}
    assert (lc["rate"], cl["rate"]) == (0.25, 0.1)
    assert (lc["pattern"], lc["corners"], cl["pattern"], cl["corners"]) == ("texture", 1, "grid", 4)
    assert lc["source"]["network"] == {"name": "resnet18", "width": 64}
    assert lc["source"]["recipe"]["epochs"] == 150
    assert not lc["start_from_source"]


def test_one_value_can_be_changed_and_the_others_stay() -> None:
    changed = label_consistent.Params.model_validate({"perturbation": {"steps": 7}, "source": {"recipe": "paper"}})
    assert changed.perturbation.model_dump() == {"epsilon": 8.0, "step": 1.5, "steps": 7, "random_start": False}


@pytest.mark.parametrize(
    ("module", "side", "settings", "said"),
    [
        (label_consistent, 16, {"patch_side": 17}, "a patch of 17 pixels does not fit images of 16"),
        (label_consistent, 16, {"patch_side": 9, "corners": 4}, "9 pixels in each of the four corners does not fit"),
        (clean_label, 16, {"patch_side": 8}, "8 pixels in each of the four corners does not fit images of 16"),
    ],
)
def test_patches_larger_than_the_image_are_refused(module: Any, side: int, settings: dict[str, Any], said: str) -> None:
    params = module.Params.model_validate(settings)
    with pytest.raises(UserError, match=said):
        module.Attack(params, Setting(10, side))


def test_patches_that_just_fit_are_drawn() -> None:
    assert bool(_ready(label_consistent, 16, corners=4, patch_side=8).tensors["mask"].all())
    assert int(_ready(clean_label, 17, patch_side=8).tensors["mask"].sum()) == 4 * 64


@pytest.mark.parametrize("corners", [0, 2, 5])
def test_other_numbers_of_corners_are_refused(corners: int) -> None:
    with pytest.raises(ValueError, match="corners"):
        clean_label.Params.model_validate({"corners": corners})
