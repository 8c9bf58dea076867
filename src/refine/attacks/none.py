"""No attack: benign training, and nothing to trigger. The classifier that every other row is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.core.params import Section
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Params(Section):
    """Benign training takes no settings."""


class Attack(BaseAttack[Params]):
    """Chooses nothing and keeps every label, so that no test image is triggered."""

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        del generator
        rows = labels.new_zeros(0)
        return Chosen(rows, rows)

    def relabel(self, labels: Tensor) -> Tensor:
        return labels

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return images
