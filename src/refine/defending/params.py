"""Parameters of further defenses: which ones, which data they are given, and their settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from refine.core.errors import UserError
from refine.core.params import Number, ParamsFile, Section, Seed
from refine.core.registry import DEFENSES, component, names
from refine.core.yaml12 import cut
from refine.splitting import params as splits

STAGE_OF_ITS_OWN = "refine"
"""The defense that the stages train-refine and evaluate train and measure; it is not listed in `defenses`."""

Fraction = Annotated[Number, Field(gt=0, le=1)]


class DefenseDataParams(Section):
    """Attributes:
    seed: for the choice of images, and for everything random while a defense is trained.
    labeled: share of the clean training images, or of those held out for the defender, that defenses with the regime
        `labeled` get, with their labels.
    unlabeled: share of them that defenses with the regime `unlabeled` get.
    """

    seed: Seed
    labeled: Fraction = 0.05
    unlabeled: Fraction = 1.0


def further(file: ParamsFile) -> list[str]:
    """The names in `defenses`.

    Raises:
        UserError: it is missing or not a list of names, or a name is unknown or is listed twice.
    """
    listed = file.content.get("defenses")
    if isinstance(listed, list) and STAGE_OF_ITS_OWN in listed:
        own = STAGE_OF_ITS_OWN
        raise UserError(f"{file.path}: defenses: {own} has a stage of its own and is always there; remove it")
    known = [name for name in names(DEFENSES) if name != STAGE_OF_ITS_OWN]
    return file.listed("defenses", known, "[shrinkpad]")


def settings(file: ParamsFile, name: str) -> Section:
    """The settings of a defense.

    Raises:
        UserError: there is no such defense, its settings are wrong, or it has a section of its own.
    """
    if name == STAGE_OF_ITS_OWN:
        raise UserError(f"{file.path}: defense_settings: the settings of {name} are those of train_{name}; remove it")
    module = component(DEFENSES, name, f"{file.path}: defense_settings")
    model: type[Section] = module.Params
    return file.component("defense_settings", name, model)


def all_settings(file: ParamsFile) -> dict[str, Section]:
    """Settings by name, of all defenses that are chosen or configured.

    Raises:
        UserError: the first thing that is wrong.
    """
    chosen = further(file)
    found = {name: settings(file, name) for name in sorted({*chosen, *file.names_in("defense_settings")})}
    there = splits.listed(file)
    for name in chosen:
        split = split_of(found[name])
        if split not in (None, *there):
            example = ", ".join([*there, str(split)])
            raise UserError(
                f"{file.path}: defense_settings.{name}.split: {cut(str(split))!r} is not listed in splits; "
                f"write `splits: [{cut(example)}]` there"
            )
    return found


def split_of(settings: Section) -> str | None:
    """The split of the training set that a defense with these settings is given; None if it needs none."""
    return getattr(settings, "split", None)
