"""BCU: what is replaced, which divergence is minimized, and what must not matter."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.core.params import ParamsFile
from refine.defending.train import Task
from refine.defenses.bcu import training
from refine.defenses.bcu.defense import Params
from refine.models import classifier as classifiers
from refine.shards.reading.tensors import load_tensors
from refine.training.checkpoint import Checkpoints
from refine.training.loop import Run
from support import synthetic, write_split
from tiny import CPU, classifier_folder, files_of, history, same_tensors

PUBLISHED = [0.01, 0.01, 0.03, 0.09, 0.27]
NOTHING = {"replaced": [0.0], "replaced_in_head": 0.0}
STILL = {"lr": 1e-12, "momentum": 0.0, "weight_decay": 0.0}


def _task(folder: Path, labels: int = 3, **settings: Any) -> Task:
    """A training on 24 unlabeled images; `labels` is how many different ones lie in the shards nevertheless."""
    made = classifier_folder(folder / "classifier")
    images, own = synthetic(24)
    write_split(folder / "images", images, own % labels)
    (folder / "out").mkdir()
    recipe = {"epochs": 3, "batch_size": 8, **settings.pop("recipe", {})}
    params = Params.model_validate({"recipe": recipe, **settings})
    card = classifiers.load(folder / "classifier")[1]
    return Task(params, 1, made, card, folder / "images", CPU, folder / "out")


def _trained(task: Task) -> dict[str, Tensor]:
    """The weights that training writes."""
    return load_tensors(task.folder / "weights.safetensors", training.train(task), "train again")


def _kl(first: list[float], second: list[float], heat: float) -> float:
    """KL(softmax(first / T) || softmax(second / T)) by the definition, number by number."""
    of, reference = ([math.exp(value / heat) for value in logits] for logits in (first, second))
    return sum(
        (one / sum(of)) * math.log((one / sum(of)) / (other / sum(reference)))
        for one, other in zip(of, reference, strict=True)
    )


@pytest.mark.parametrize("heat", [1.0, 1.75, 4.0])
def test_the_divergence_is_that_of_the_definition_element_by_element(heat: float) -> None:
    first, second = [[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], [[0.5, 0.0, -0.5], [1.0, 1.0, 4.0]]
    one, other = torch.tensor(first), torch.tensor(second)
    expected = sum(_kl(*pair, heat) for pair in zip(first, second, strict=True)) / 2
    reverse = sum(_kl(*pair, heat) for pair in zip(second, first, strict=True)) / 2
    assert training.divergence(one, other, heat).item() == pytest.approx(expected, rel=1e-5)
    assert training.divergence(other, one, heat).item() == pytest.approx(reverse, rel=1e-5)
    assert abs(expected - reverse) > 0.05 * expected


@pytest.mark.parametrize(("direction", "student_first"), [("student_teacher", True), ("teacher_student", False)])
def test_the_student_is_compared_with_the_teacher_in_the_direction_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str, student_first: bool
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    real = training.divergence

    def watched(of: Tensor, reference: Tensor, heat: float) -> Tensor:
        seen.append((of, reference))
        return real(of, reference, heat)

    monkeypatch.setattr(training, "divergence", watched)
    training.train(_task(tmp_path, divergence=direction))
    assert seen
    assert all(pair[not student_first].requires_grad and not pair[student_first].requires_grad for pair in seen)


def test_the_temperature_rises_from_one_to_four() -> None:
    heats = [training.temperature(epoch, 100, 3.0) for epoch in (1, 50, 100)]
    assert heats == pytest.approx([1.03, 2.5, 4.0])


def _heats(monkeypatch: pytest.MonkeyPatch, task: Task) -> list[float]:
    """The temperature of each step of a training, as far as it comes."""
    seen: list[float] = []
    real = training.divergence
    with monkeypatch.context() as patch:
        patch.setattr(training, "divergence", lambda of, to, heat: (seen.append(heat), real(of, to, heat))[1])
        with contextlib.suppress(KeyboardInterrupt):
            training.train(task)
    return seen


def test_a_training_that_goes_on_has_the_temperature_that_was_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _task(tmp_path / "whole")
    assert _heats(monkeypatch, whole) == pytest.approx([2.0] * 3 + [3.0] * 3 + [4.0] * 3)
    (tmp_path / "kept").mkdir()
    stopped = changed(_task(tmp_path / "stopped"), checkpoints=Checkpoints(tmp_path / "kept"))
    real = Run._tell

    def interrupted(run: Run, epoch: int) -> None:
        real(run, epoch)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_tell", interrupted)
        assert _heats(monkeypatch, stopped) == pytest.approx([2.0] * 3)
    assert _heats(monkeypatch, stopped) == pytest.approx([3.0] * 3 + [4.0] * 3)
    assert files_of(stopped.folder) == files_of(whole.folder)


def test_what_is_replaced_does_not_depend_on_the_value_that_replaces_it(tmp_path: Path) -> None:
    """The same draws for both would take the smallest of the new values alone."""
    task = _task(tmp_path, replaced=[0.1], recipe={"epochs": 1, "optimizer": STILL})
    weights, given = _trained(task), task.classifier.network.state_dict()
    values = torch.cat([weights[name][weights[name] != given[name]] for name in given if "conv" in name])
    assert len(values) > 500
    assert (values > 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_where_nothing_is_replaced_and_nothing_learned_the_student_is_the_teacher(tmp_path: Path) -> None:
    task = _task(tmp_path, **NOTHING, recipe={"epochs": 1, "optimizer": STILL})
    weights = _trained(task)
    for name, tensor in task.classifier.network.named_parameters():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-9)


def test_batch_normalization_starts_as_it_was_given(tmp_path: Path) -> None:
    task = _task(tmp_path, replaced=[1.0], replaced_in_head=1.0, recipe={"epochs": 1, "optimizer": STILL})
    weights, given = _trained(task), task.classifier.network
    norms = [name for name, module in given.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for name, tensor in given.named_parameters():
        if name.rpartition(".")[0] in norms:
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-9)
        else:
            assert not torch.equal(weights[name], tensor)


def test_the_student_learns_the_answers_of_the_teacher(tmp_path: Path) -> None:
    recipe = {"epochs": 12, "augment": {}}
    settings = {"replaced": [0.3], "replaced_in_head": 0.3, "warming": 0.0, "divergence": "teacher_student"}
    training.train(_task(tmp_path, **settings, recipe=recipe))
    rows = history(tmp_path / "out")
    assert rows[-1]["loss"] < rows[0]["loss"] / 10
    assert rows[-1]["agreement"] > rows[0]["agreement"] + 0.2


def test_no_label_is_read(tmp_path: Path) -> None:
    for name, labels in (("one", 3), ("other", 1)):
        training.train(_task(tmp_path / name, labels=labels))
    assert files_of(tmp_path / "one/out") == files_of(tmp_path / "other/out")


def test_the_given_classifier_stays_as_it_was(tmp_path: Path) -> None:
    task = _task(tmp_path, replaced=[1.0])
    before = {name: tensor.clone() for name, tensor in task.classifier.state_dict().items()}
    training.train(task)
    assert same_tensors(before, task.classifier.state_dict())


def test_the_defaults_are_the_published_recipe() -> None:
    recipe = Params().recipe
    assert (recipe.epochs, recipe.batch_size, recipe.schedule.name) == (100, 256, "cosine")
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("sgd", 0.01)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 5e-4)
    assert (recipe.augment.shift, recipe.augment.flip) == (4, 0.5)
    assert (Params().replaced, Params().replaced_in_head, Params().warming) == (PUBLISHED, 0.1, 3.0)


def test_without_a_value_for_any_group_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("defense_settings: {bcu: {replaced: []}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"defense_settings.bcu"):
        ParamsFile(path).component("defense_settings", "bcu", Params)
