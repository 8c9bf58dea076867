"""JSON files that have a model: read whole or refused in one sentence. They may come from anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from refine.core.errors import UserError
from refine.core.files import read_json

Document = TypeVar("Document", bound=BaseModel)

_TOLD = 200


def read_document(path: Path, model: type[Document], remedy: str) -> Document:
    """Reads a file and checks it against its model.

    Raises:
        UserError: it is missing, no JSON object, or does not fit the model; the sentence ends with the remedy.
    """
    return validated(path, read_json(path, remedy), model, remedy)


def validated(path: Path, content: Any, model: type[Document], remedy: str) -> Document:
    """What a file holds, or a part of it, checked against a model.

    Raises:
        UserError: it does not fit; the sentence names the first place and ends with the remedy.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"])) or "all of it"
        told = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} cannot be used ({where[:_TOLD]}: {told[:_TOLD]}); {remedy}") from None
