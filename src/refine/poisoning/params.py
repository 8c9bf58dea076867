"""Parameters of the stage poison-dataset."""

from __future__ import annotations

from refine.core.params import Section, Seed


class AttackChoice(Section):
    """Attributes:
    name: the attack, a file of `src/refine/attacks`; its settings stand under `attacks`.
    """

    name: str


class PoisonDatasetParams(Section):
    """Attributes:
    attack: which attack.
    seed: of every random choice the attack makes.
    """

    attack: AttackChoice
    seed: Seed
