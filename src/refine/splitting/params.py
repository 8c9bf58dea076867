"""Parameters of splits of the training set: which ones, and their settings."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from refine.core.params import Number, ParamsFile, Section, Seed
from refine.core.registry import SPLITS, component, names

SplitName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
"""Of a split that a defense is given."""


class SplitParams(Section):
    """Settings that every split has.

    Attributes:
        alpha_c: share of the training images that the clean group takes.
        alpha_p: share that the poisoned group takes; the images between the two groups are uncertain.
        seed: of everything random.
    """

    alpha_c: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    alpha_p: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    seed: Seed = 1

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.alpha_c + self.alpha_p > 1:
            raise ValueError("alpha_c and alpha_p are more than all images; lower one")
        return self


def listed(file: ParamsFile) -> list[str]:
    """The names in `splits`.

    Raises:
        UserError: it is missing or not a list of names, or a name is unknown or is listed twice.
    """
    return file.listed("splits", names(SPLITS), "[sd]")


def settings(file: ParamsFile, name: str) -> SplitParams:
    """The settings of a split.

    Raises:
        UserError: there is no such split, or its settings are wrong.
    """
    module = component(SPLITS, name, f"{file.path}: split_settings")
    model: type[SplitParams] = module.Params
    return file.component("split_settings", name, model)


def all_settings(file: ParamsFile) -> dict[str, SplitParams]:
    """Settings by name, of all splits that are chosen or configured.

    Raises:
        UserError: the first thing that is wrong.
    """
    return {name: settings(file, name) for name in sorted({*listed(file), *file.names_in("split_settings")})}
