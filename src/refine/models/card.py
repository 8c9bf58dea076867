"""Model folders: weights in safetensors beside a `card.json` that says what they are. Nothing is unpickled.

A folder may come from anybody, so everything in the card is checked before it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from refine.system.errors import UserError
from refine.system.files import read_json, write_json

NAME = "card.json"
WEIGHTS = "weights.safetensors"
REMEDY = "run `dvc checkout`, train the model again or give another folder"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Card(BaseModel):
    """What every model card holds.

    Attributes:
        format_version: of the card.
        kind: `classifier` or `refine`.
        weights_sha256: of `weights.safetensors`.
        training: how it was trained; for people, nothing reads it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    format_version: Annotated[int, Field(ge=1, le=1)] = 1
    kind: str
    weights_sha256: Sha256
    training: dict[str, Any]


AnyCard = TypeVar("AnyCard", bound=Card)


def write_card(folder: Path, card: Card) -> None:
    """Writes the card into the folder."""
    write_json(folder / NAME, card.model_dump())


def read_card(folder: Path, model: type[AnyCard]) -> AnyCard:
    """Reads a folder's card.

    Raises:
        UserError: it is missing, damaged, or the card of something else.
    """
    content = read_json(folder / NAME, REMEDY)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the card"
        raise UserError(f"{folder / NAME} cannot be used ({where}: {problem['msg']}); {REMEDY}") from None


def fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into a module whose parameters and buffers must have exactly their names, shapes and types.

    Raises:
        UserError: they do not fit.
    """
    own = module.state_dict()
    odd = sorted(set(own) ^ set(tensors)) or sorted(
        name for name in own if own[name].shape != tensors[name].shape or own[name].dtype != tensors[name].dtype
    )
    if odd:
        raise UserError(
            f"{path} does not fit the architecture in its card (first difference: {odd[0]}); "
            "correct the card or give the matching weights"
        )
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values() if tensor.is_floating_point()):
        raise UserError(f"{path} holds values that are not finite; train the model again")
    module.load_state_dict(tensors)
