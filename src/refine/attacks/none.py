"""No attack: benign training without a trigger, as a reference for the other attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine.core.params import Section
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Params(Section):
    """Benign training has no settings."""


class Attack(BaseAttack[Params]):
    """Selects no image and keeps all labels, so that no test image is triggered."""

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        del generator
        rows = labels.new_zeros(0)
        return Chosen(rows, rows)

    def relabel(self, labels: Tensor) -> Tensor:
        return labels

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return images
