"""The stress test from beginning to end, with a tiny classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny
from refine.core.documents import validated
from refine.core.errors import UserError
from refine.evaluation.metrics import interval
from refine.models import classifier as classifiers
from refine.proof.stress import stress
from refine.proof.stress.params import StressParams
from refine.proof.stress.result import NOTE, StressResult
from refine.proof.stress.stress import stress_test
from refine.proof.stress.table import render, told
from stressed import PATCH, defender, images, model, params


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stress")
    model(made / "model")
    return made


@pytest.fixture(scope="module")
def result(folder: Path) -> StressResult:
    split = images(folder / "images")
    return stress_test(folder / "model", split, params(), defender(), tiny.CPU, folder / "work", labeled=True)


def test_the_result_tells_what_was_measured(result: StressResult, folder: Path) -> None:
    assert (result.images.planting, result.images.defending, result.images.measuring) == (40, 40, 39)
    (plant,) = result.plants
    assert plant.took
    assert plant.after
    assert plant.before.attack_success_rate.share >= 0.8
    for rate in (plant.before.agreement, plant.after.attack_success_rate, plant.model.attack_success_rate):
        assert rate.interval_95 == pytest.approx(interval(rate.share, rate.images), abs=1e-5)
    assert plant.before.agreement.images == 39
    assert plant.before.attack_success_rate.images < 39
    assert plant.model.agreement.share == 1
    assert plant.after.benign_accuracy
    assert result.worst == "patch"
    assert result.note == NOTE
    assert result.model_sha256 == classifiers.load(folder / "model")[1].weights_sha256


def test_it_is_json_and_a_table(result: StressResult) -> None:
    content = json.loads(json.dumps(result.model_dump()))
    assert validated(Path("stress.json"), content, StressResult, "") == result
    shown = render(result)
    assert all(text in shown for text in ("patch", "1 of 1 plants took", "No certificate", "39 to measure"))


def test_a_finished_plant_is_not_computed_again(
    folder: Path, result: StressResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = images(folder / "images-again")
    noted: list[Path] = []
    again = stress_test(folder / "model", split, params(), defender(noted), tiny.CPU, folder / "work", labeled=True)
    assert (again, noted) == (result, [])
    monkeypatch.setattr(stress, "planted", lambda *_: (_ for _ in ()).throw(UserError("planted again")))
    with pytest.raises(UserError, match="planted again"):
        stress_test(folder / "model", split, params(seed=2), defender(), tiny.CPU, folder / "work", labeled=True)


def test_nothing_but_results_of_plants_is_left_behind(folder: Path, result: StressResult) -> None:
    assert [path.suffix for path in (folder / "work").iterdir()] == [".json"]
    assert result.plants


def test_a_plant_that_did_not_take_counts_neither_way(tmp_path: Path) -> None:
    model(tmp_path / "model")
    split, noted = images(tmp_path / "images"), list[Path]()
    found = stress_test(tmp_path / "model", split, _never(), defender(noted), tiny.CPU, tmp_path / "work")
    (plant,) = found.plants
    assert (plant.took, plant.after, found.worst, noted) == (False, None, None, [])
    assert plant.before.benign_accuracy is None
    assert "did not take" in render(found)
    assert "says nothing about the defense" in render(found)


def test_a_trigger_that_the_model_itself_answers_counts_neither_way(tmp_path: Path) -> None:
    model(tmp_path / "model")
    whole = {"attack": "badnets", "settings": {"rate": 0.5, "patch_side": 16}}  # after which all images are the same
    plants = {"one": whole, "two": whole, "three": whole}
    brief = {"epochs": 1, "min_steps": 0, "batch_size": 40, "optimizer": {"lr": 1e-6}}
    easy = params(plants=plants, recipe=brief, least_asr=0.0, most_disagreement=1.0)
    found = stress_test(tmp_path / "model", images(tmp_path / "images"), easy, defender(), tiny.CPU, tmp_path / "work")
    floors = {plant.name: plant.model.attack_success_rate.share for plant in found.plants}
    assert [plant.name for plant in found.plants if not plant.took] == [name for name in floors if floors[name] > 0.5]
    assert 0 < len(found.took) < len(plants)
    assert all("(of the model itself 100.0 %)" in told(plant) for plant in found.plants if not plant.took)


def _never() -> StressParams:
    """A plant of one step, which is too little."""
    return params(recipe={"epochs": 1, "min_steps": 0, "batch_size": 40, "optimizer": {"lr": 1e-6}}, least_asr=1.0)


def test_each_plant_has_a_target_of_its_own(folder: Path) -> None:
    card = classifiers.load(folder / "model")[1]
    plans = stress._plans(params(plants={"one": PATCH, "two": PATCH, "three": PATCH, "four": PATCH}), card)
    assert sorted(plan.target for plan in plans[:3]) == [0, 1, 2]
    assert plans[3].target == plans[0].target
    assert len({plan.seed for plan in plans}) == 4


def test_images_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    split = images(tmp_path / "images", side=24)
    with pytest.raises(UserError, match="takes images of 16 pixels, these have 24"):
        stress_test(folder / "model", split, params(), defender(), tiny.CPU, tmp_path / "work")


def test_a_model_with_one_answer_is_refused(tmp_path: Path) -> None:
    made = tiny.classifier_folder(tmp_path / "model")
    with torch.no_grad():
        made.network.get_parameter("head.bias").copy_(torch.tensor([1000.0, 0.0, 0.0]))
    classifiers.save(tmp_path / "model", made, tiny.classifier_card())
    with pytest.raises(UserError, match="the same answer to all images"):
        stress_test(tmp_path / "model", images(tmp_path / "i"), params(), defender(), tiny.CPU, tmp_path / "work")
