"""JSON files with a pydantic model. They may be untrusted: one that does not fit is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from refine.core.errors import UserError
from refine.core.files import read_json

Document = TypeVar("Document", bound=BaseModel)

_LONGEST = 200


def read_document(path: Path, model: type[Document], remedy: str) -> Document:
    """Reads a JSON file and validates it.

    Raises:
        UserError: the file is missing, not a JSON object, or does not fit the model; the message ends with the remedy.
    """
    return validated(path, read_json(path, remedy), model, remedy)


def validated(path: Path, content: Any, model: type[Document], remedy: str) -> Document:
    """Validates the content of a file, or a part of it.

    Raises:
        UserError: it does not fit the model; the message names the first problem and ends with the remedy.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"])) or "all of it"
        message = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} cannot be used ({where[:_LONGEST]}: {message[:_LONGEST]}); {remedy}") from None
