"""Settings of a transform, found by its name in parameters and cards."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError

from refine.core.errors import UserError
from refine.core.params import Section, sentence
from refine.core.registry import TRANSFORMS, component
from refine.core.yaml12 import shown

_NAME = "name"


class TransformParams(Section):
    """Attributes:
    name: of a folder in `transforms`, whose own settings stand beside it.
    takes_pixels: whether it takes nothing but pixels, and normalizes them itself where it has to.
    has_classifier_features: whether its encoder has the classifier's architecture, and so as many features.
    """

    takes_pixels: ClassVar[bool] = False
    has_classifier_features: ClassVar[bool] = False

    name: str

    @property
    def copies_weights(self) -> bool:
        """Whether it begins with weights of the network that it is trained through."""
        return False


def _by_name(content: Any) -> Any:
    """The settings of the transform that is named, validated."""
    if isinstance(content, TransformParams):
        return content
    if not isinstance(content, dict) or not isinstance(content.get(_NAME), str):
        raise _wrong(f"must be a mapping with the name of a transform, such as {{name: unet}}, not {shown(content)}")
    try:
        return component(TRANSFORMS, content[_NAME], _NAME).Params.model_validate(content)
    except UserError as error:
        raise _wrong(str(error)) from None
    except ValidationError as error:
        raise _wrong(sentence(content[_NAME], error)) from None


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("unknown", "{sentence}", {"sentence": message})


AnyTransform = Annotated[SerializeAsAny[TransformParams], BeforeValidator(_by_name)]
"""The settings of any transform, in parameters and cards."""
