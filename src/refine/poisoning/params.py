"""Parameters of the stage poison-dataset."""

from __future__ import annotations

from refine.core.params import Section, Seed


class AttackName(Section):
    """Attributes:
    name: the attack, a file in `src/refine/attacks`; its settings are under `attacks`.
    """

    name: str


class PoisonDatasetParams(Section):
    """Attributes:
    attack: to apply.
    seed: of all random draws of the attack.
    """

    attack: AttackName
    seed: Seed
