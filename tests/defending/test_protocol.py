"""What a defense may do beside answering is told by its methods, and nothing asks for its name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refine.defending.protocol.defense import Defense, MapsLabels, NoDefense, Purifies
from refine.defenses.shrinkpad.defense import Defended as ShrinkPad
from refine.defenses.shrinkpad.defense import Params
from systems import Mirrored, Negative
from tiny import classifier, defense

PIXELS = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("made", "purifies", "maps_labels"),
    [
        (NoDefense(classifier()), False, False),
        (Mirrored(classifier()), False, False),
        (Negative(classifier()), True, False),
        (ShrinkPad(classifier(), Params(), 16), True, False),
        (defense(classifier()), True, True),
    ],
    ids=["no defense", "neither", "purifies", "shrinkpad", "refine"],
)
def test_what_a_defense_does_is_seen_by_its_methods(made: Defense, purifies: bool, maps_labels: bool) -> None:
    assert isinstance(made, Defense)
    assert isinstance(made, Purifies) is purifies
    assert isinstance(made, MapsLabels) is maps_labels


@pytest.mark.parametrize("protocol", [Purifies, MapsLabels])
def test_it_is_asked_for_methods_alone(protocol: type) -> None:
    """Python 3.12 and later find no submodule where they look whether an object fits."""
    members = [member for name, member in vars(protocol).items() if not name.startswith("_")]
    assert members
    assert all(callable(member) for member in members)
    assert getattr(protocol, "__annotations__", {}) == {}


@torch.no_grad()
def test_without_a_defense_the_answers_are_the_classifier_s() -> None:
    of = classifier()
    made = NoDefense(of)
    assert made.classifier is of
    assert (made.title, made.regime, made.changes_classifier) == ("no defense", "none", False)
    assert torch.equal(made(PIXELS), of(PIXELS))
    torch.testing.assert_close(made.probabilities(PIXELS), of(PIXELS).softmax(dim=1))


class Narrow(Defense):
    """Answers in bfloat16, as a network under autocast does."""

    title = "narrow"
    regime = "none"

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :3].bfloat16()


def test_probabilities_are_of_float32_values() -> None:
    probabilities = Narrow().probabilities(PIXELS)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6))
