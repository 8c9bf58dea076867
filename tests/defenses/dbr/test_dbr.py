"""D-BR: what it unlearns with a good split, and what its guards do with a bad one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from refine.backdoor.train import train_backdoor
from refine.defending import given, loading, material
from refine.defending.params import DefenseDataParams
from refine.defending.protocol.defense import NoDefense
from refine.defending.train import Task, train_defense
from refine.defenses.dbr import training
from refine.defenses.dbr.defense import Params
from refine.defenses.dbr.guards import Cap
from refine.models import classifier as classifiers
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from tiny import (
    CPU,
    Poisoned,
    attack,
    backdoor_params,
    history,
    poisoned,
    raw,
    same_tensors,
    split_folder,
    training_set,
)

RECIPE: dict[str, Any] = {"epochs": 4, "batch_size": 16, "optimizer": {"lr": 0.003}}
FAST: dict[str, Any] = {"epochs": 3, "batch_size": 16, "optimizer": {"lr": 0.02}}
BAD = {"purity": 0.0, "alpha_c": 0.1, "alpha_p": 0.4}
"""A split whose poisoned group has no poisoned image, and whose clean group is too small to mend what that breaks."""


@dataclass(frozen=True)
class Toy:
    """A classifier with a backdoor, and what it was trained on."""

    folder: Path
    data: Poisoned

    @property
    def classifier(self) -> Path:
        """Its folder."""
        return self.folder / "classifier"

    def given(self, out: Path, split: dict[str, float], **settings: Any) -> Path:
        """What the defender gets, with an oracle's split."""
        source = self.data.outputs.train
        split_folder(out / "split/oracle", source, **{"alpha_c": 0.4, "alpha_p": 0.2, **split})
        params = Params.model_validate({"split": "oracle", "recipe": RECIPE, "held_out": 0.3, **settings})
        sources = {"raw": source, "poisoned": source, "split": out / "split"}
        given.give("dbr", "poisoned_train", params, DefenseDataParams(seed=1), sources, out / "given")
        return out / "given"

    def defended(self, out: Path, split: dict[str, float], **settings: Any) -> tuple[float, float]:
        """Benign accuracy and attack success rate after the defense, in percent."""
        train_defense("dbr", self.given(out, split, **settings), self.classifier, CPU, out / "dbr")
        return self.measured(loading.load(out / "dbr", self.classifier))

    @torch.no_grad()
    def measured(self, classifier: Any) -> tuple[float, float]:
        """Benign accuracy and attack success rate, in percent."""

        def share(images: Tensor, labels: Tensor) -> float:
            return 100 * float((classifier(images / 255).argmax(dim=1) == labels).float().mean())

        test, triggered = self.data.test, self.data.triggered_test
        return share(test.images, test.labels), share(triggered.images, triggered.labels)

    def task(self, out: Path, split: dict[str, float], **settings: Any) -> Task:
        """As `train` is given it."""
        folder = self.given(out, split, **settings)
        classifier, card = classifiers.load(self.classifier)
        got = material.read(folder)
        (out / "dbr").mkdir()
        params = Params.model_validate(got.settings)
        return Task(params, 1, classifier, card, folder / "train", CPU, out / "dbr", split=got.split)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Trained until images and trigger both succeed."""
    folder = tmp_path_factory.mktemp("toy")
    clean = raw(folder / "raw", images=180)
    data = poisoned(
        folder / "poisoned", "badnets", attack("badnets", clean[0], rate=0.3, patch_side=8, target=0), clean
    )
    params = backdoor_params(
        epochs=24, batch_size=16, optimizer={"lr": 0.02, "nesterov": True}, schedule={"name": "one_cycle"}
    )
    train_backdoor(
        params, training_set(data.poisoned_train), data.outputs.attack / "training", CPU, folder / "classifier"
    )
    made = Toy(folder, data)
    assert min(made.measured(NoDefense(classifiers.load(made.classifier)[0]))) > 95
    return made


def _guards(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "dbr/guards.json").read_text(encoding="utf-8"))
    return content


def test_a_good_split_unlearns_the_trigger_and_keeps_the_rest(toy: Toy, tmp_path: Path) -> None:
    accuracy, success = toy.defended(tmp_path, {})
    assert success < 20
    assert accuracy >= 98
    told = _guards(tmp_path)
    assert told["outcome"] == "finished"
    assert len(told["held_out_accuracy"]) == 5
    rows = history(tmp_path / "dbr")
    assert rows[0]["poisoned_entropy"] < rows[-1]["poisoned_entropy"]
    assert rows[-1]["poisoned_accuracy"] < 0.5 < rows[-1]["clean_accuracy"]


def test_with_a_random_poisoned_group_the_gate_fires_and_accuracy_stays(toy: Toy, tmp_path: Path) -> None:
    accuracy, _ = toy.defended(tmp_path, BAD, recipe=FAST, held_out=0.4)
    told = _guards(tmp_path)
    assert told["outcome"] == "stopped"
    assert "accuracy on held-out images fell from 100.0% to " in told["reason"]
    assert accuracy >= 80
    assert len((tmp_path / "dbr/history.csv").read_text(encoding="utf-8").splitlines()) == 1 + FAST["epochs"]


def test_without_guards_a_random_poisoned_group_destroys_the_classifier(toy: Toy, tmp_path: Path) -> None:
    assert toy.defended(tmp_path, BAD, recipe=FAST, guards="off")[0] < 80
    assert _guards(tmp_path) == {"outcome": "finished", "reason": "guards are off", "held_out_accuracy": []}


def test_where_the_split_abstains_the_weights_stay(toy: Toy, tmp_path: Path) -> None:
    task = toy.task(tmp_path, {})
    assert task.split is not None
    refused = replace(task, split=task.split.model_copy(update={"gate": "no two groups", "abstain": True}))
    assert training.train(refused) == task.card.weights_sha256
    told = {"outcome": "abstained", "reason": "no two groups", "held_out_accuracy": []}
    assert _guards(tmp_path) == told


def test_without_guards_it_does_not_abstain(toy: Toy, tmp_path: Path) -> None:
    task = toy.task(tmp_path, {}, guards="off")
    assert task.split is not None
    refused = replace(task, split=task.split.model_copy(update={"gate": "no two groups", "abstain": True}))
    assert training.train(refused) != task.card.weights_sha256


def test_the_loss_of_the_poisoned_group_rises_while_it_is_gone_over(toy: Toy, tmp_path: Path) -> None:
    repair = training.repairing(toy.task(tmp_path, {}))
    batches = list(repair.batches.epoch(1))
    flags = [batch.fields[2].tolist() for batch in batches]
    assert all(len(set(each)) == 1 for each in flags)
    firsts = [each[0] for each in flags]
    assert firsts == sorted(firsts, reverse=True)  # all of the one group, then all of the other
    assert sum(len(each) for each in flags if each[0]) == 36
    assert sum(len(each) for each in flags if not each[0]) == 72 - 22
    up = batches[: firsts.index(0)]
    before = _entropy(repair, up)
    optimizer = torch.optim.SGD(repair.module.parameters(), lr=0.01, momentum=0.9)
    repair.module.train()
    for batch in up:
        optimizer.zero_grad()
        repair.step(batch).loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert _entropy(repair, up) > 2 * before


@torch.no_grad()
def _entropy(repair: training.Repair, batches: list[Batch]) -> float:
    """Mean cross-entropy of batches under the running statistics."""
    repair.module.eval()
    return sum(
        float(cross_entropy(repair.classifier(batch.pixels), batch.fields[0], reduction="sum")) for batch in batches
    )


def test_only_images_below_the_cap_are_raised_and_it_looks_with_the_running_statistics(toy: Toy) -> None:
    classifier = classifiers.load(toy.classifier)[0].train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    images = toy.data.test.images[:6] / 255
    with torch.no_grad():
        logits = classifier.eval()(images)
    classifier.train()
    labels = torch.where(torch.arange(6) < 3, logits.argmax(dim=1), logits.argmin(dim=1))
    entropy = cross_entropy(logits, labels, reduction="none")
    assert entropy[:3].max() < 3.0 * math.log(3) < entropy[3:].min()
    assert Cap(classifier, CPU, "fp32", 3.0).leaves_room(images, labels).tolist() == [1, 1, 1, 0, 0, 0]
    assert all(module.training for module in classifier.modules())
    assert same_tensors(dict(classifier.state_dict()), before)


def test_normalization_by_running_statistics_leaves_them(toy: Toy, tmp_path: Path) -> None:
    repair = training.repairing(toy.task(tmp_path, {}, bn="eval"))
    before = {name: value.clone() for name, value in repair.module.state_dict().items() if "running" in name}
    repair.module.train()
    repair.step(next(iter(repair.batches.epoch(1))))
    after = {name: value for name, value in repair.module.state_dict().items() if "running" in name}
    assert same_tensors(before, after)


def test_it_goes_on_after_an_interruption_as_if_there_had_been_none(toy: Toy, tmp_path: Path) -> None:
    """Also where a guard stops it after the restart: it takes back the state of the same epoch."""
    shas = []
    for name, stop in (("whole", None), ("parts", 1)):
        task = replace(toy.task(tmp_path / name, BAD, recipe=FAST, held_out=0.4), checkpoints=None)
        folder = tmp_path / name / "kept"
        folder.mkdir()
        if stop is not None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training.Repair, "after_epoch", _interrupting(stop))
                with pytest.raises(KeyboardInterrupt):
                    training.train(replace(task, checkpoints=Checkpoints(folder)))
            assert list(folder.glob("epoch-*.ckpt"))
        shas.append(training.train(replace(task, checkpoints=Checkpoints(folder))))
    assert shas[0] == shas[1]
    assert _guards(tmp_path / "whole") == _guards(tmp_path / "parts")


def _interrupting(after: int) -> Any:
    real = training.Repair.after_epoch

    def look(self: training.Repair, epoch: int, weights: Any) -> None:
        if epoch > after:
            raise KeyboardInterrupt
        real(self, epoch, weights)

    return look


def test_published_settings_are_the_defaults() -> None:
    recipe = Params().recipe
    assert (Params().split, Params().guards, Params().bn, recipe.epochs, recipe.batch_size) == (
        "sd",
        "on",
        "train",
        20,
        128,
    )
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 1e-4, 0.9, 5e-4)
    assert (recipe.augment.shift, recipe.augment.flip, recipe.schedule.milestones) == (4, 0.5, [])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"recipe": {"average": 0.9}}, "average is not for weights"), ({"split": "../x"}, "should match pattern")],
)
def test_what_it_cannot_do_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Params.model_validate(settings)
