"""Settings of a component that stand beside its name, such as `{name: unet, first_channels: 12}`."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from refine.core.errors import UserError
from refine.core.params import Section
from refine.core.registry import component
from refine.core.yaml12 import shown

_NAME = "name"


class Chosen(Section):
    """The settings of one component of a room, found by its name in parameters and cards.

    A kind of component has a subclass that sets `room` and `example`. Validated as that subclass, settings become those
    of the component that is named: its own `Params`, a subclass of that. As the type of a field, write
    `SerializeAsAny[...]`, or what a component adds is not written.

    Attributes:
        room: the package of such components.
        example: of such a mapping, for error messages.
        name: of the component.
    """

    room: ClassVar[str]
    example: ClassVar[str]

    name: str

    @model_validator(mode="wrap")
    @classmethod
    def _by_name(cls, content: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if "room" not in vars(cls) or isinstance(content, cls):
            return handler(content)
        if not isinstance(content, dict) or not isinstance(content.get(_NAME), str):
            raise _wrong(f"must be a mapping with a name, such as {cls.example}, not {shown(content)}")
        try:
            params: type[Self] = component(cls.room, content[_NAME], "").Params
        except UserError as error:
            problem = {"type": _wrong(str(error).removeprefix(": ")), "loc": (_NAME,), "input": content[_NAME]}
            raise ValidationError.from_exception_data(cls.__name__, [problem]) from None  # type: ignore[list-item]
        return params.model_validate(content)


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("unknown", "{sentence}", {"sentence": message})
