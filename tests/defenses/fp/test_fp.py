"""FP: which features go, when it stops, and that they stay away."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from finetuned import ARCHITECTURES, task
from refine.core.errors import UserError
from refine.defenses.fp.defense import Params
from refine.defenses.fp.training import PRUNED, dormant, train
from refine.models.card import WEIGHTS

RECIPE = {"epochs": 2, "batch_size": 8, "optimizer": {"lr": 0.001}}


def test_published_settings() -> None:
    assert (Params().at_once, Params().most_loss) == (0.01, 0.1)


def test_the_least_used_features_go_until_accuracy_falls() -> None:
    """Ten features: the class is the largest of the last three, which are used most."""
    features = torch.zeros(60, 10)
    labels = torch.arange(60) % 3
    features[:, :7] = torch.tensor([0.3, 0.1, 0.5, 0.2, 0.6, 0.4, 0.0])
    features[torch.arange(60), 7 + labels] = 9.0 - labels
    head = nn.Linear(10, 3, bias=False)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[torch.arange(3), 7 + torch.arange(3)] = 1.0
    held = torch.arange(60) < 30
    removed, steps = dormant(head, features, labels, held, Params(at_once=0.1))
    assert removed.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert [count for count, _ in steps] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [accuracy for _, accuracy in steps[:7]] == [1.0] * 7
    assert steps[7][1] == pytest.approx(2 / 3)  # without its feature, class 2 is taken for class 0
    some, _ = dormant(head, features, labels, held, Params(at_once=0.3, most_loss=0.0))
    assert some.sum() == 6
    assert set(some.nonzero().flatten().tolist()) == {6, 1, 3, 0, 5, 2}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_removed_stays_away(tmp_path: Path, architecture: str) -> None:
    train(task(tmp_path, "fp", {"at_once": 0.1, "most_loss": 0.99, "validation": 0.3, "recipe": RECIPE}, architecture))
    with (tmp_path / "out" / PRUNED).open(encoding="utf-8") as file:
        steps = [int(row["removed"]) for row in csv.DictReader(file)]
    weight = load_file(tmp_path / "out" / WEIGHTS)["head.weight"]
    empty = int((weight == 0).all(dim=0).sum())
    assert empty in steps
    assert empty >= steps[0] > 0
    assert (weight != 0).any()


def test_a_share_that_leaves_nothing_to_look_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fp\.validation 0\.99 of 12 images is all of them; lower it"):
        train(task(tmp_path, "fp", {"validation": 0.99, "recipe": RECIPE}))
