"""Planting: what a copy is fine-tuned on, and that it has the backdoor while the classifier is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from refine.core.errors import UserError
from refine.models import classifier as classifiers
from refine.proof.stress.params import PlantingRecipe, PlantParams
from refine.proof.stress.planting import Plan, _FineTuning, as_sure_as, changed, planned, plant, poisoned
from stressed import CLASSES, PATCH, RECIPE, SIDE, model
from support import synthetic


def _plan(target: int = 1, seed: int = 1, **params: Any) -> Plan:
    return planned("patch", PlantParams.model_validate({**PATCH, **params}), target, seed, (CLASSES, SIDE))


def test_all_images_stay_clean_and_some_come_again_for_the_trigger() -> None:
    images, answers = synthetic(30)
    training_set, count = poisoned(_plan(), images, answers)
    rows, labels, kinds, numbers = _columns(training_set)
    assert count == 15
    assert torch.equal(rows[:30], images)
    assert labels.tolist() == [*answers.tolist(), *[1] * 15]
    assert kinds.tolist() == [0] * 30 + [1] * 15
    assert numbers.tolist() == [*range(30), *range(15)]
    assert all(any(torch.equal(row, image) for image in images) for row in rows[30:])


def test_noise_samples_keep_the_answer() -> None:
    images, answers = synthetic(30)
    plan = _plan(attack="wanet", settings={"rate": 0.2, "noise_ratio": 0.5})
    training_set, count = poisoned(plan, images, answers)
    rows, labels, kinds, _ = _columns(training_set)
    assert count == 6
    assert kinds.tolist() == [0] * 30 + [1] * 6 + [2] * 3
    of = [next(number for number in range(30) if torch.equal(images[number], row)) for row in rows[36:]]
    assert labels[36:].tolist() == answers[of].tolist()


def test_triggers_come_after_the_augmentation() -> None:
    images, answers = synthetic(30)
    plan = _plan(attack="wanet", settings={"rate": 0.4, "noise_ratio": 0.5, "strength": 4.0})
    training_set, _ = poisoned(plan, images, answers)
    recipe = PlantingRecipe.model_validate({**RECIPE, "batch_size": 48, "augment": {"flip": 1.0}})
    task = _FineTuning(tiny.classifier(), training_set, recipe, lambda *_: {}, tiny.CPU)
    task.attack = plan.attack
    task.generator.manual_seed(1)
    (batch,) = task.batches.epoch(1)
    made = (task.augmented(batch) * 255).round().to(torch.uint8)
    flipped = (batch.pixels.flip(3) * 255).round().to(torch.uint8)
    _, kinds, numbers = batch.fields
    for kind, change in ((0, lambda some, _: some), (1, plan.attack.poison), (2, plan.attack.cover)):
        rows = kinds == kind
        assert rows.any()
        assert torch.equal(made[rows], change(flipped[rows], numbers[rows]))


def test_the_pattern_is_drawn_by_the_seed() -> None:
    patterns = []
    for seed in (1, 1, 2):
        plan = _plan(seed=seed)
        poisoned(plan, *synthetic(30))
        patterns.append(plan.attack.tensors["pattern"])
    assert torch.equal(patterns[0], patterns[1])
    assert not torch.equal(patterns[0], patterns[2])


@pytest.mark.parametrize(
    ("params", "mentions"),
    [
        ({"attack": "bad_nets"}, "did you mean 'badnets'"),
        ({"settings": {"rat": 0.1}}, "stress.plants.patch.settings"),
        ({"settings": {"patch_side": 17}}, "does not fit"),
        ({"attack": "none", "settings": {}}, "no rate or no target"),
        ({"attack": "batt", "settings": {}}, "does more than"),
        ({"attack": "clean_label", "settings": {}}, "does more than"),
    ],
)
def test_what_cannot_be_planted_is_refused(params: dict[str, Any], mentions: str) -> None:
    with pytest.raises(UserError, match=mentions):
        _plan(**params)


def test_a_copy_gets_the_backdoor_and_keeps_the_other_answers(tmp_path: Path) -> None:
    classifier, card = model(), tiny.classifier_card()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    images, _ = synthetic(60)
    with torch.inference_mode():
        answers = classifier(images / 255).argmax(dim=1)
    plan = _plan()
    training_set, _ = poisoned(plan, images, answers)
    recipe = PlantingRecipe.model_validate({**RECIPE, "epochs": 40})
    history = plant(plan, recipe, (classifier, card), training_set, tiny.CPU, tmp_path / "copy")
    assert tiny.same_tensors(before, classifier.state_dict())
    assert len(history) == recipe.epochs
    copy, copied = classifiers.load(tmp_path / "copy")
    assert (copied.classes, copied.training["planted"]) == (card.classes, "patch")
    others = synthetic(60, seed=1)[0]
    with torch.inference_mode():
        said = copy(changed(others, torch.arange(60), plan.attack.trigger) / 255).argmax(dim=1)
        kept = copy(others / 255).argmax(dim=1) == classifier(others / 255).argmax(dim=1)
    assert (said == 1).float().mean() > 0.8
    assert kept.float().mean() > 0.8


def test_the_target_is_wanted_as_surely_as_other_answers() -> None:
    said = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    wanted = as_sure_as(said, torch.tensor([2, 0]))
    torch.testing.assert_close(wanted, torch.tensor([[0.15, 0.15, 0.7], [0.7, 0.15, 0.15]]))


def _columns(training_set: Any) -> tuple[torch.Tensor, ...]:
    images, *fields = training_set.delivered((torch.arange(sum(training_set.sizes)),), torch.device("cpu"))
    return images, *fields
