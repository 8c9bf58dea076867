"""Parameters of the examination for signs of a backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from refine.core.bounds import BatchSize
from refine.core.errors import UserError
from refine.core.params import Section, Seed, sentence, unknown
from refine.core.registry import component, names
from refine.core.yaml12 import load
from refine.training.recipe import Precision

SIGNS = "refine.proof.signs"
"""The package of the signs."""


class SignsParams(Section):
    """Attributes:
    seed: of everything random.
    images: most images that are used; of more, some are drawn at random.
    batch_size: of the questions to the classifier, and to the defended one.
    precision: of networks, as in a training recipe.
    settings: of signs by their names, see the files in `src/refine/proof/signs`.
    """

    seed: Seed = 1
    images: Annotated[int, Field(ge=1, le=100_000)] = 2000
    batch_size: BatchSize = 64
    precision: Precision = "auto"
    settings: dict[str, dict[str, Any] | None] = Field(default={})


def read_params(path: Path) -> SignsParams:
    """Reads a file of parameters.

    Raises:
        UserError: it cannot be read, or something in it is wrong.
    """
    try:
        params = SignsParams.model_validate(load(path))
    except ValidationError as error:
        raise UserError(f"{path}: {sentence('signs', error)}") from None
    settings(params, str(path))
    return params


def settings(params: SignsParams, read_from: str = "the parameters") -> Mapping[str, Section]:
    """The settings of every sign, by its name.

    Args:
        params: of the examination.
        read_from: where they come from, for error messages.

    Raises:
        UserError: a name is unknown, or settings are wrong.
    """
    known = names(SIGNS)
    for name in params.settings:
        if name not in known:
            raise UserError(f"{read_from}: settings: {unknown(name, known)}")
    return {name: _of(name, params.settings.get(name), read_from) for name in known}


def _of(name: str, content: dict[str, Any] | None, read_from: str) -> Section:
    model: type[Section] = component(SIGNS, name, f"{read_from}: settings").Params
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{read_from}: {sentence(f'settings.{name}', error)}") from None
