"""Which training images are the attacker's, and which the defender's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refine.core.errors import UserError
from refine.shards.held_out import held_out, of_attacker, of_defender
from tiny import attack, poisoned, raw


def test_by_default_both_have_all_images(tmp_path: Path) -> None:
    train, _ = raw(tmp_path)
    assert of_attacker(train, 0) is train
    assert of_defender(60, 0).all()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_what_is_held_out_for_the_defender_the_attacker_does_not_have(tmp_path: Path, share: float) -> None:
    train, _ = raw(tmp_path)
    count = len(train.keys)
    own, others = of_attacker(train, share), of_defender(count, share)
    assert int(others.sum()) == round(share * count)
    assert sorted([*own.keys.tolist(), *train.keys[others].tolist()]) == train.keys.tolist()
    rows = torch.searchsorted(train.keys, own.keys)
    assert torch.equal(own.images, train.images[rows])
    assert torch.equal(own.labels, train.labels[rows])
    assert len(own.infos) == len(rows)


def test_it_is_the_same_share_everywhere_and_the_larger_one_is_another_draw_of_the_same_order() -> None:
    assert torch.equal(held_out(100, 0.2), held_out(100, 0.2))
    assert (held_out(100, 0.4) | ~held_out(100, 0.2)).all()


def test_the_attack_poisons_its_share_of_what_the_attacker_has(tmp_path: Path) -> None:
    train, test = raw(tmp_path / "raw")
    own = of_attacker(train, 0.5)
    made = poisoned(tmp_path / "poisoned", "badnets", attack("badnets", own, rate=0.2), (own, test))
    assert made.poisoned_train.keys.tolist() == own.keys.tolist()
    assert int(made.poisoned_train.flags("poisoned").sum()) == round(0.2 * len(own.keys))


@pytest.mark.parametrize(("share", "said"), [(0.01, "leaves the defender none; raise it"), (0.99, "the attacker none")])
def test_a_share_that_leaves_one_of_them_nothing_is_refused(share: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        held_out(10, share)
