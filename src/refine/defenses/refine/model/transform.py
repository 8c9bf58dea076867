"""What a transform is, and finding the one that a parameter or a card names.

A transform is a file in `transforms`: its settings `Params`, and `build(params, card)`, which gives a `Transform` for
the classifier of that card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.core.params import Section, sentence
from refine.core.registry import component
from refine.core.yaml12 import shown
from refine.models.classifier import Classifier, ClassifierCard

TRANSFORMS = "refine.defenses.refine.model.transforms"
_NAME = "name"


class TransformParams(Section):
    """Attributes:
    name: of a file in `transforms`, whose own settings stand beside it.
    takes_pixels: whether it takes nothing but pixels, and normalizes them itself where it has to.
    """

    takes_pixels: ClassVar[bool] = False

    name: str


class Transform(nn.Module, ABC):
    """Maps images float [N, 3, H, W] to images of the same size, of unbounded values.

    An encoder recognizes what an image shows, and the rest draws what the frozen classifier takes for another class.

    Attributes:
        outlet: the last layer.
    """

    outlet: nn.Conv2d
    _frozen = False

    @abstractmethod
    def encoder(self) -> list[nn.Module]:
        """The modules that `encoded` computes with."""

    @abstractmethod
    def encoded(self, images: Tensor) -> Tensor:
        """What the encoder makes of images, float [N, D]."""

    @abstractmethod
    def begin(self, classifier: Classifier, classes: int, pixels: Callable[[], Tensor]) -> nn.Module:
        """Sets the weights that training begins with, where they are not those of a freshly built transform.

        Args:
            classifier: that it is trained for; it stays as it is.
            classes: K.
            pixels: gives training images float [N, 3, H, W] in [0, 1], if the encoder needs any.

        Returns:
            The head, float [N, D] to logits float [N, K], under which the encoder can learn the classifier's answers.
        """

    def freeze_encoder(self) -> None:
        """From now on the encoder stays as it is, its batch statistics included; the rest goes on learning."""
        for part in self.encoder():
            part.requires_grad_(False)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; a frozen encoder stays in eval mode whatever happens."""
        super().train(mode)
        if self._frozen:
            for part in self.encoder():
                part.eval()
        return self


def built(params: TransformParams, card: ClassifierCard) -> Transform:
    """A freshly initialized transform (from torch's global random state).

    Args:
        params: its name and settings.
        card: of the classifier that it is for.

    Raises:
        UserError: it cannot be built for this classifier.
    """
    made: Transform = component(TRANSFORMS, params.name, "transform").build(params, card)
    return made


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
