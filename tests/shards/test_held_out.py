"""Which training images are the attacker's, and which the defender's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refine.core.errors import UserError
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.shards.reading.held_out import held_out, of_attacker, of_defender
from refine.shards.reading.reader import read_split
from tiny import attack, raw


def test_by_default_both_have_all_images() -> None:
    assert of_attacker(60, 0).all()
    assert of_defender(60, 0).all()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_what_is_held_out_for_the_defender_the_attacker_does_not_have(share: float) -> None:
    own, others = of_attacker(60, share), of_defender(60, share)
    assert int(others.sum()) == round(share * 60)
    assert torch.equal(own, ~others)


def test_it_is_the_same_share_everywhere_and_the_larger_one_is_another_draw_of_the_same_order() -> None:
    assert torch.equal(held_out(100, 0.2), held_out(100, 0.2))
    assert (held_out(100, 0.4) | ~held_out(100, 0.2)).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_attack_poisons_its_share_of_what_the_attacker_has(tmp_path: Path, share: float) -> None:
    train, _ = raw(tmp_path / "raw")
    own = train.subset(of_attacker(60, share))
    clean = open_clean(tmp_path / "raw/train", tmp_path / "raw/test", share)
    outputs = Outputs.below(tmp_path / "poisoned")
    poison_dataset("badnets", attack("badnets", train, rate=0.4), 1, clean, outputs)
    made = read_split(outputs.train)
    assert made.keys.tolist() == own.keys.tolist()
    chosen = made.flags("poisoned")
    assert int(chosen.sum()) == round(0.4 * len(own.keys))
    assert torch.equal(made.images[~chosen], own.images[~chosen])
    assert torch.equal(made.labels[~chosen], own.labels[~chosen])
    assert not torch.equal(made.images[chosen], own.images[chosen])
    assert not made.labels[chosen].any()


@pytest.mark.parametrize(("share", "said"), [(0.01, "leaves the defender none; raise it"), (0.99, "the attacker none")])
def test_a_share_that_leaves_one_of_them_nothing_is_refused(share: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        held_out(10, share)
