"""The benign classifier of the clean-label attacks: trained on clean images, or the user's own and checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator
from torch.nn.functional import cross_entropy

from refine.attacks import label_consistent
from refine.core.errors import UserError
from refine.models.classifier import Classifier
from refine.poisoning.adversarial import source_model
from refine.poisoning.adversarial.pgd import perturbed
from refine.poisoning.adversarial.settings import Perturbation
from refine.poisoning.attack import Setting
from support import synthetic
from tiny import WIDTH, classifier_folder, same_tensors

RECIPE = {"epochs": 4, "batch_size": 16, "optimizer": {"lr": 0.02}, "augment": {}}


def _made(seed: int = 1, setting: Setting | None = None, **source: Any) -> Classifier:
    settings = {"network": {"name": "resnet18", "width": WIDTH}, "recipe": RECIPE, **source}
    params = label_consistent.Params.model_validate({"source": settings})
    generator = Generator().manual_seed(seed)
    return source_model.source_model(params, *synthetic(96), setting or Setting(3, 16), generator)


def test_it_learns_the_clean_images_and_is_frozen() -> None:
    made = _made()
    images, labels = synthetic(30, seed=5)
    assert float((made(images / 255).argmax(dim=1) == labels).float().mean()) > 0.8
    assert not made.training
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_a_network_that_wants_to_see_images_first_is_shown_some() -> None:
    made = _made(network={"name": "airbench", "width": WIDTH})
    weights = made.network.get_parameter("whiten.weight")
    assert torch.equal(weights[:12], -weights[12:])  # as computed from images, unlike the layer's first values


def test_a_lone_image_is_a_sentence_where_the_network_cannot_normalize_it() -> None:
    with pytest.raises(
        UserError, match=r"source\.recipe: .* of the 96 images, too little at 16 pixels; raise batch_size$"
    ):
        _made(network={"name": "airbench", "width": WIDTH}, recipe={**RECIPE, "batch_size": 1})


def test_the_seed_alone_decides_its_weights() -> None:
    first, second, third = (_made(seed).network.state_dict() for seed in (1, 1, 2))
    assert same_tensors(first, second)
    assert not same_tensors(first, third)


def test_it_normalizes_by_the_images_that_it_is_trained_on() -> None:
    images, _ = synthetic(20)
    images[:, 1] //= 2
    found = source_model.normalization_of(images)
    pixels = images.double() / 255
    assert found.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert found.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())
    flat = source_model.normalization_of(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8))
    assert flat.std == [1 / 255] * 3


def test_a_robust_classifier_withstands_perturbations_that_mislead_a_standard_one() -> None:
    images, labels = synthetic(60, seed=5)
    settings = Perturbation(epsilon=8.0, step=2.0, steps=10, random_start=False)
    losses = []
    for steps in (0, 4):
        made = _made(robust_steps=steps)
        changed = perturbed(made, images, labels, settings, Generator())
        losses.append(float(cross_entropy(made(changed / 255), labels) - cross_entropy(made(images / 255), labels)))
    assert losses[1] < losses[0]


def test_messages_name_the_attack_whose_settings_they_are_about() -> None:
    setting = Setting(3, 16, name="label_consistent")
    with pytest.raises(UserError, match=r"^attacks\.label_consistent\.source\.recipe: a batch of 500 images cannot be"):
        _made(setting=setting, recipe={**RECIPE, "batch_size": 500, "drop_last": True})


def test_the_users_own_is_taken_from_its_folder(tmp_path: Path) -> None:
    own = classifier_folder(tmp_path / "own/benign")
    made = _made(setting=Setting(3, 16, tmp_path / "own"), folder=str(tmp_path / "own/benign"))
    assert same_tensors(made.network.state_dict(), own.network.state_dict())


@pytest.mark.parametrize(
    ("setting", "said"),
    [((4, 16), "of 3 classes for images of 16 pixels, but the data set has 4 classes"), ((3, 32), "and 32 pixels")],
)
def test_one_for_another_data_set_is_refused(tmp_path: Path, setting: tuple[int, int], said: str) -> None:
    classifier_folder(tmp_path / "benign")
    with pytest.raises(UserError, match=said):
        _made(setting=Setting(*setting, tmp_path), folder=str(tmp_path / "benign"))


def test_a_folder_elsewhere_or_without_a_card_is_refused(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "benign")
    (tmp_path / "own").mkdir()
    with pytest.raises(UserError, match="lies outside"):
        _made(setting=Setting(3, 16, tmp_path / "own"), folder=str(tmp_path / "benign"))
    with pytest.raises(UserError, match=r"card\.json is missing"):
        _made(setting=Setting(3, 16, tmp_path / "own"), folder=str(tmp_path / "own/nothing"))


def test_weights_that_would_run_code_are_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "benign"
    classifier_folder(folder)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "hacked"),))

    torch.save(Evil(), folder / "weights.safetensors")
    with pytest.raises(UserError, match="sha256 differs"):
        _made(setting=Setting(3, 16, tmp_path), folder=str(folder))
    assert not (tmp_path / "hacked").exists()
