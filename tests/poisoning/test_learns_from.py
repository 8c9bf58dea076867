"""Attacks that train a network hold no more images in memory than they are told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.poisoning.adversarial import source_model
from refine.poisoning.attack import Chosen, Setting
from refine.poisoning.memory import learned_from
from refine.shards.reading.pixels import Images
from support import synthetic
from tiny import attack, raw

SETTING = Setting(3, 16, None, "ssba")


def test_all_images_are_taken_without_a_draw() -> None:
    images, labels = synthetic(12)
    generator = Generator().manual_seed(1)
    for most in (None, 12, 100):
        found = learned_from(images, labels, most, "learns_from", SETTING, generator)
        assert torch.equal(found[0], images)
        assert torch.equal(found[1], labels)
    assert torch.equal(generator.get_state(), Generator().manual_seed(1).get_state())


def test_fewer_are_drawn_and_stay_in_order() -> None:
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 3, 16, 16)
    labels = torch.arange(50)
    one, again, other = (
        learned_from(images, labels, 10, "learns_from", SETTING, Generator().manual_seed(seed))[1] for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.tolist() == sorted(set(one.tolist()))
    assert len(one) == 10
    found = learned_from(images, labels, 10, "learns_from", SETTING, Generator().manual_seed(1))[0]
    assert torch.equal(found[:, 0, 0, 0].long(), one)


def test_more_than_the_memory_takes_is_refused_and_fewer_are_not() -> None:
    images, labels = torch.zeros(8, 3, 224, 224, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    setting = Setting(3, 224, None, "ssba", machine=Machine(memory=1))
    with pytest.raises(UserError, match=r"ssba holds 8 training images .* set attacks.ssba.learns_from to fewer"):
        learned_from(images, labels, None, "learns_from", setting, Generator())
    assert len(learned_from(images, labels, 6, "learns_from", setting, Generator())[0]) == 6


class _SeenError(Exception):
    """What an attack would train a network on."""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ssba", {"learns_from": 5}),
        ("input_aware", {"learns_from": 5}),
        ("low_frequency", {"source": {"learns_from": 5}}),
        ("label_consistent", {"source": {"learns_from": 5}}),
        ("clean_label", {"source": {"learns_from": 5}}),
    ],
)
def test_every_attack_that_trains_a_network_asks_how_many(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(images: Images, *others: Any) -> Any:
        raise _SeenError(len(learned_from(images, *others)[0]))

    train, _ = raw(tmp_path, images=12)
    made = attack(name, train, **settings)
    for module in (source_model, __import__(f"refine.attacks.{name}", fromlist=[name])):
        if hasattr(module, "learned_from"):
            monkeypatch.setattr(module, "learned_from", seen)
    every = torch.arange(3)
    with pytest.raises(_SeenError, match=r"^5$"):
        made.prepare(train.images, train.labels, Chosen(every, every[:0]), Generator().manual_seed(1))
