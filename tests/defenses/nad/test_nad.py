"""NAD: what attention is, between which maps, and that it draws the student to its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetuned import ARCHITECTURES, batch, of_architecture, state, task
from refine.core.errors import UserError
from refine.defending.maps import Watched, last_of_each_resolution
from refine.defenses.nad.defense import Params
from refine.defenses.nad.training import attention, loss_of, train
from tiny import history, same_tensors

RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 6, "optimizer": {"lr": 0.001}, "augment": {}}


def test_published_settings() -> None:
    params = Params()
    assert (params.weights, params.power) == ((500.0, 1000.0), 2.0)
    assert (params.recipe.epochs, params.teacher.epochs, params.recipe.schedule.milestones) == (10, 10, [])


def test_attention_has_length_1_and_is_nothing_where_there_is_one_pixel() -> None:
    maps = torch.randn(4, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    found = attention(maps, 2.0)
    assert found.shape == (4, 15)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(found[0] * maps[0].square().sum(dim=0).norm(), maps[0].square().sum(dim=0).flatten())
    assert torch.equal(attention(maps[:, :, :1, :1], 2.0), torch.ones(4, 1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_maps_are_the_last_of_their_resolution(architecture: str) -> None:
    network = of_architecture(architecture).network
    names = last_of_each_resolution(network, 16)
    watched = Watched(network, names)
    outputs: list[Tensor] = []
    for module in network.modules():
        module.register_forward_hook(lambda _, __, out: outputs.append(out))
    network(torch.rand(2, 3, 16, 16))
    sides = [maps.shape[-1] for maps in watched.maps]
    assert sides == sorted({out.shape[-1] for out in outputs if out.ndim == 4 and out.shape[-1] > 1}, reverse=True)
    for maps in watched.maps:
        assert maps is [out for out in outputs if out.ndim == 4 and out.shape[-1] == maps.shape[-1]][-1]


def test_a_student_like_its_teacher_has_nothing_to_learn_of_it() -> None:
    shown = batch()
    student, teacher, other = (of_architecture("resnet18") for _ in range(3))
    with torch.no_grad():
        other.network.get_parameter("stem.0.weight").mul_(torch.linspace(0, 1, 3).view(1, 3, 1, 1))
    names = last_of_each_resolution(student.network, 16)[-2:]
    watching = Watched(student.network, names)
    terms = []
    for wanted in (teacher, other):
        loss = loss_of(wanted, (watching, Watched(wanted.network, names)), (500.0, 1000.0), 2.0)
        terms.append(loss(student(shown.pixels), shown.pixels, shown))
    assert float(terms[0]["attention"]) == 0
    torch.testing.assert_close(terms[0]["loss"], terms[0]["cross_entropy"])
    assert float(terms[1]["attention"]) > 0.001
    torch.testing.assert_close(terms[1]["loss"], terms[1]["cross_entropy"] + terms[1]["attention"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_trains_a_teacher_and_then_the_student(tmp_path: Path, architecture: str) -> None:
    settings = {"weights": [100.0], "recipe": {**RECIPE, "epochs": 3}, "teacher": RECIPE}
    given = task(tmp_path, "nad", settings, architecture)
    before = state(given.classifier)
    train(given)
    assert same_tensors(before, state(given.classifier))
    assert [row["epoch"] for row in history(tmp_path / "out", "teacher_history.csv")] == [1, 2]
    rows = history(tmp_path / "out")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["attention"] > 0 for row in rows)


def test_more_maps_than_there_are_resolutions_are_refused(tmp_path: Path) -> None:
    given = task(tmp_path, "nad", {"weights": [1.0] * 9, "recipe": RECIPE})
    with pytest.raises(UserError, match="names 9 maps, and the network has 4 of different resolutions; name fewer"):
        train(given)
