"""The name of a recorded run: data set, preset, attack, defense, variant and seed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from refine.core.errors import UserError
from refine.core.strict import Strict
from refine_lab.runs.parameters import attack_of, seeds

Word = Annotated[str, Field(pattern=r"^[a-z0-9_.]+$")]


class Name(Strict):
    """The parts of a name, which is also that of the run's folder."""

    dataset: Word
    preset: Word
    attack: Word
    defense: Word
    variant: Word = "default"
    seed: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return f"{self.dataset}-{self.preset}-{self.attack}-{self.defense}-{self.variant}-s{self.seed}"


def name_of(params: dict[str, Any], preset: str, defense: str, variant: str) -> Name:
    """The name of a run.

    Args:
        params: content of its parameters file.
        preset: that it departs from.
        defense: which of those that the parameters ask for.
        variant: one word for what is special about it.

    Raises:
        UserError: its stages have different seeds, or a part of the name is no plain word.
    """
    found = seeds(params, defense)
    if len(set(found.values())) > 1:
        raise UserError(f"a recorded run has one seed, not {found}; give all sections the same")
    try:
        return Name(
            dataset=params["download"]["source"],
            preset=preset,
            attack=attack_of(params),
            defense=defense,
            variant=variant,
            seed=next(iter(found.values())),
        )
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise UserError(
            f"{wrong['input']!r} cannot be part of a run's name; use small letters, digits, '_' and '.'"
        ) from None
