"""The split that is told the truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.models.architecture import named
from refine.splits.oracle.split import Params, split
from refine.splitting.groups import CLEAN, POISONED
from refine.splitting.protocol import Task
from tiny import CPU, WIDTH, Poisoned, attack, poisoned, raw


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """200 training images, 40 of which are poisoned."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw", images=200)
    return poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0], rate=0.2), clean)


def _groups(data: Poisoned, **settings: Any) -> tuple[Tensor, Tensor]:
    """The groups, and what is poisoned."""
    task = Task(Params.model_validate(settings), data.outputs.train, named(name="resnet18", width=WIDTH), CPU)
    return split(task).groups, data.poisoned_train.flags("poisoned")


@pytest.mark.parametrize("purity", [1.0, 0.9, 0.5, 0.1, 0.0])
def test_the_poisoned_group_is_as_pure_as_asked_and_the_clean_one_is_clean(data: Poisoned, purity: float) -> None:
    groups, truth = _groups(data, purity=purity)
    assert int((groups == POISONED).sum()) == 10
    assert int((groups == CLEAN).sum()) == 40
    assert int(truth[groups == POISONED].sum()) == round(10 * purity)
    assert not truth[groups == CLEAN].any()


def test_the_clean_group_can_hold_poison(data: Poisoned) -> None:
    groups, truth = _groups(data, clean_purity=0.75)
    assert int(truth[groups == CLEAN].sum()) == 10
    assert truth[groups == POISONED].all()


def test_the_seed_draws_others(data: Poisoned) -> None:
    one, again, other = (_groups(data, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_more_poison_than_there_is_is_refused(data: Poisoned) -> None:
    with pytest.raises(UserError, match=r"has 40 poisoned images, and the split wants 60; lower purity or alpha_p"):
        _groups(data, alpha_p=0.3)
    with pytest.raises(UserError, match=r"has 160 other images, and the split wants 180; lower alpha_c or alpha_p"):
        _groups(data, alpha_c=0.9)


def test_a_group_without_images_is_refused(data: Poisoned) -> None:
    with pytest.raises(UserError, match=r"alpha_p 0.004 of 200 images is none; raise it in split_settings"):
        _groups(data, alpha_p=0.004)
