"""Model folders: safetensors weights with a `card.json` that describes them. Nothing is unpickled.

A folder may be untrusted, so everything in the card is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import write_json
from refine.core.strict import Strict
from refine.shards.reading.tensors import load_tensors, other, refuse_other, shapes

NAME = "card.json"
WEIGHTS = "weights.safetensors"
REMEDY = "run `dvc checkout`, train the model again or give another folder"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Card(Strict):
    """The fields of every model card.

    Attributes:
        format_version: of the card.
        kind: `classifier` or `refine`.
        weights_sha256: of `weights.safetensors`.
        training: how it was trained, for human readers only.
    """

    format_version: Annotated[int, Field(ge=1, le=1)] = 1
    kind: str
    weights_sha256: Sha256
    training: dict[str, Any]


AnyCard = TypeVar("AnyCard", bound=Card)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def write_card(folder: Path, card: Card) -> None:
    """Writes the card into the folder."""
    write_json(folder / NAME, card.model_dump())


def read_card(folder: Path, model: type[AnyCard]) -> AnyCard:
    """Reads a folder's card.

    Raises:
        UserError: it is missing, damaged, or describes another kind of model.
    """
    return read_document(folder / NAME, model, REMEDY)


def restored(build: Callable[[], AnyModule], path: Path, sha256: str) -> AnyModule:
    """Builds a module and loads its state from a file.

    The module is first built without memory (on torch's `meta` device) and compared with the header of the file, so
    that a card cannot make us allocate more than its file holds.

    Args:
        build: returns the freshly initialized module that the card describes.
        path: of the safetensors file.
        sha256: of the file.

    Raises:
        UserError: the file is missing, damaged, or does not fit the module.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    tensors = load_tensors(path, sha256, REMEDY, shapes(expected))
    module = build()
    load_exact(module, tensors, path)
    return module


def load_exact(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into a module; names, shapes and dtypes must match its parameters and buffers exactly.

    Args:
        module: to load the tensors into.
        tensors: the state, by name.
        path: of the file that they come from, for error messages.

    Raises:
        UserError: they do not match, are not finite, or hold a negative running variance.
    """
    own = module.state_dict()
    refuse_other(path, shapes(own), shapes(tensors))
    for name in sorted(own):
        if own[name].dtype != tensors[name].dtype:
            raise other(path, name)
        if tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise UserError(f"{path} holds values that are not finite, in {name}; train the model again")
        if name.endswith("running_var") and (tensors[name] < 0).any():
            raise UserError(f"{path} holds negative variances, in {name}; train the model again")
    module.load_state_dict(tensors)
