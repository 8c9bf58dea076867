"""Presets that claim a source, value by value, what they leave to the defaults included."""

from __future__ import annotations

from typing import Any

import pytest

from refine.backdoor.params import TrainBackdoorParams
from refine.core.params import ParamsFile
from refine.core.registry import component
from refine.defenses.refine.training.params import TrainRefineParams
from support import PROJECT

PAPER = PROJECT / "presets/paper.yaml"
SGD = {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
MACHINE = {"precision": "fp32", "compile": False, "shuffle_buffer": 65536, "average": 0.0}


def _steps(factor: float) -> dict[str, Any]:
    unused = {"warmup": 0.2, "period": 100, "floor": 0.0, "rise": 0.0, "start": 0.0}
    return {"name": "step", "milestones": [100 / 150, 130 / 150], "factor": factor, **unused}


CLASSIFIER = {
    "epochs": 150,
    "batch_size": 128,
    "drop_last": False,
    "optimizer": {**SGD, "lr": 0.1},
    "schedule": _steps(0.1),
    "augment": {"crop_scale": 1.0, "shift": 0, "flip": 0.5, "jitter": None, "grayscale": 0.0, "cutout": 0},
    "label_smoothing": 0.0,
    **MACHINE,
}
NETWORK = {"name": "resnet18", "width": 64}
ALL_CLASSES = {"rate": 0.1, "target": 0}
ATTACKS: dict[str, dict[str, Any]] = {
    "badnets": {**ALL_CLASSES, "patch_side": None},
    "blended": {**ALL_CLASSES, "alpha": 0.1},
    "wanet": {**ALL_CLASSES, "variant": "released", "k": None, "strength": 0.5, "noise_ratio": 0.0},
    "batt": {**ALL_CLASSES, "degrees": 16.0, "benign_degrees": 10.0},
    "physical": {
        **ALL_CLASSES,
        "patch_side": None,
        "degrees": 10.0,
        "translate": 0.1,
        "scale": [0.8, 0.9],
        "flip": 0.5,
        "brightness": 0.1,
    },
    "label_consistent": {
        "rate": 0.25,
        "target": 0,
        "patch_side": None,
        "pattern": "texture",
        "corners": 1,
        "perturbation": {"epsilon": 8.0, "step": 1.5, "steps": 100, "random_start": False},
        "source": {"folder": None, "network": NETWORK, "recipe": CLASSIFIER, "robust_steps": 0, "learns_from": None},
        "start_from_source": True,
    },
    "adaptive_patch": {
        "rate": 0.01,
        "target": 0,
        "cover_rate": 0.02,
        "opacities": [0.5, 0.5, 0.2, 0.3],
        "test_opacity": 1.0,
    },
}
"""The attacks of REFINE's released code, with its values."""


def test_paper_trains_the_classifier_as_the_released_code_does() -> None:
    params = ParamsFile(PAPER).section("train_backdoor", TrainBackdoorParams)
    assert params.model_dump(exclude={"imported"}) == {
        "seed": 1,
        "network": NETWORK,
        "adaptive": None,
        "recipe": CLASSIFIER,
    }


def test_paper_trains_the_defense_as_the_released_code_does() -> None:
    params = ParamsFile(PAPER).section("train_refine", TrainRefineParams)
    assert params.model_dump() == {
        "seed": 1,
        "permutation_seed": 666,
        "remap": True,
        "transform": {"name": "unet", "first_channels": 64},
        "input_space": "normalized_clamp01",
        "initial_output": 0.0,
        "initial_contrast": 1.0,
        "unlabeled_fraction": 1.0,
        "pseudo_labels": "each_step",
        "substitute": None,
        "encoder": None,
        "snapshots": 5,
        "loss": {"utility": "binary", "supcon_weight": 0.1, "supcon_temperature": 0.07},
        "recipe": {
            "epochs": 150,
            "batch_size": 256,
            "drop_last": True,
            "optimizer": {**SGD, "lr": 0.01},
            "schedule": _steps(0.8),
            "augment": {"crop_scale": 0.8, "shift": 0, "flip": 0.5, "jitter": None, "grayscale": 0.2, "cutout": 0},
            "min_steps": 0,
            **MACHINE,
        },
    }


def test_paper_poisons_cifar10_by_badnets() -> None:
    content = ParamsFile(PAPER).content
    assert content["download"]["source"] == "cifar10"
    assert content["poison_dataset"] == {
        "attack": {"name": "badnets"},
        "seed": 1,
        "held_out": 0.0,
        "contaminated": 0.0,
    }
    assert content["other_images"] == []
    assert content["sources"] == {}


@pytest.mark.parametrize("name", ATTACKS)
def test_paper_has_the_released_values_of_the_released_attacks(name: str) -> None:
    given = ParamsFile(PAPER).content["attacks"].get(name, {})
    params = component("refine.attacks", name, "a test").Params.model_validate(given)
    assert params.model_dump() == ATTACKS[name]


def test_paper_leaves_the_settings_of_the_other_attacks_to_their_defaults() -> None:
    assert not any(given for name, given in ParamsFile(PAPER).content["attacks"].items() if name not in ATTACKS)


@pytest.mark.parametrize("preset", ["cpu", "cpu_short"])
def test_cpu_presets_have_jordans_optimizer_and_schedule_rescaled_to_their_batches(preset: str) -> None:
    """Jordan's learning rate and decay are told per 1024 images and free of the momentum's effect on the step."""
    recipe = ParamsFile(PROJECT / f"presets/{preset}.yaml").section("train_backdoor", TrainBackdoorParams).recipe
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert recipe.batch_size == 512
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.85, True)
    assert optimizer.lr == pytest.approx(11.5 * 512 / 1024 / (1 + 1 / (1 - 0.85)), rel=1e-3)
    assert optimizer.weight_decay == pytest.approx(0.0153 / 11.5, rel=0.03)
    assert (schedule.name, schedule.warmup) == ("one_cycle", 0.23)
    assert recipe.label_smoothing == 0.2
    assert recipe.augment.model_dump() == {
        "crop_scale": 1.0,
        "shift": 2,
        "flip": 0.5,
        "jitter": None,
        "grayscale": 0.0,
        "cutout": 0,
    }
