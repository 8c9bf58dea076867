"""Parameters of the stage poison-dataset."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from refine.core.params import Number, Section, Seed


class AttackName(Section):
    """Attributes:
    name: the attack, a file in `src/refine/attacks`; its settings are under `attacks`.
    """

    name: str


class PoisonDatasetParams(Section):
    """Attributes:
    attack: to apply.
    seed: of all random draws of the attack.
    held_out: share of the training images that the attacker does not have; defenses with clean images then have these
        and no others of this data set. With 0, as in the papers, they have the very images that the classifier is
        fitted to.
    contaminated: share of the images without labels that have the trigger, before a defense takes its fraction of them.
    """

    attack: AttackName
    seed: Seed
    held_out: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    contaminated: Annotated[Number, Field(ge=0, lt=1)] = 0.0
