"""New weights of a defender are not those that the attacker began with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from refine.backdoor.train import train_backdoor
from refine.defending.retraining import fresh
from refine.defending.train import Task
from refine.defenses.refine.training import substitute
from refine.defenses.refine.training.params import SubstituteParams
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, backdoor_params, badnets, training_set


def _attacked(folder: Path) -> tuple[Classifier, Task]:
    """A classifier that has hardly left the weights of its seed, and a defense's task with the same seed."""
    data = badnets(folder)
    params = backdoor_params(epochs=1, optimizer={"lr": 1e-12})
    train_backdoor(params, training_set(data.poisoned_train), data.outputs.attack / "training", CPU, folder / "made")
    made, card = classifiers.load(folder / "made")
    return made, Task(None, params.seed, made, card, folder, CPU, folder)


def _drawn(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.named_parameters() if value.dim() > 1}


def test_a_fresh_network_shares_no_weight_with_a_classifier_of_the_same_seed(tmp_path: Path) -> None:
    made, task = _attacked(tmp_path)
    torch.manual_seed(task.seed)
    like = classifiers.build(task.card.architecture, 3, task.card.normalization, 16)
    own, began, new = (_drawn(each.network) for each in (made, like, fresh(task)))
    assert all(torch.allclose(own[name], began[name], atol=1e-6) for name in own), "else this test shows nothing"
    assert all((own[name] - new[name]).abs().mean() > 1e-3 for name in own)


def test_neither_does_a_substitute(tmp_path: Path) -> None:
    made, task = _attacked(tmp_path)
    recipe = {"epochs": 1, "batch_size": 16, "optimizer": {"lr": 1e-12}, "augment": {}}
    params = SubstituteParams.model_validate({"recipe": recipe})
    images = Resident(synthetic(32)[0], ())
    network = substitute.trained(params, task.seed, (made, task.card), images, CPU, None)[0].network
    own, new = _drawn(made.network), _drawn(network)
    assert all((own[name] - new[name]).abs().mean() > 1e-3 for name in own)
