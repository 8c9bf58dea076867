"""Parameters of further defenses: which ones, which data they are given, and their settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from refine.core.errors import UserError
from refine.core.params import Number, ParamsFile, Section, Seed, unknown
from refine.core.registry import DEFENSES, component, names
from refine.core.yaml12 import shown

STAGE_OF_ITS_OWN = "refine"
"""The defense that the stages train-refine and evaluate train and measure; it is not listed in `defenses`."""

Fraction = Annotated[Number, Field(gt=0, le=1)]


class DefenseDataParams(Section):
    """Attributes:
    seed: for the choice of images, and for everything random while a defense is trained.
    labeled: share of the clean training images that defenses with the regime `labeled` get, with their labels.
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
    if "defenses" not in file.content:
        raise UserError(f"{file.path}: defenses is missing; write `defenses: []` there for none but {STAGE_OF_ITS_OWN}")
    listed = file.content["defenses"]
    if not isinstance(listed, list):
        raise UserError(f"{file.path}: defenses must be a list such as [shrinkpad], not {shown(listed)}")
    known = [name for name in names(DEFENSES) if name != STAGE_OF_ITS_OWN]
    for name in listed:
        if name == STAGE_OF_ITS_OWN:
            raise UserError(f"{file.path}: defenses: {name} has a stage of its own and is always there; remove it")
        if name not in known:
            raise UserError(f"{file.path}: defenses: {unknown(name, known)}")
        if listed.count(name) > 1:
            raise UserError(f"{file.path}: defenses: {name} is listed twice; remove one")
    return [str(name) for name in listed]


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
    return {name: settings(file, name) for name in sorted({*further(file), *file.names_in("defense_settings")})}
