"""What a transform is.

A transform is a folder in `transforms`: `params.py` with its settings `Params`, and `transform.py` with
`build(params, card)`, which gives a `Transform` for the classifier of that card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Self, cast

from torch import Tensor, nn

from refine.core.registry import TRANSFORM, TRANSFORMS, part
from refine.defenses.refine.model.transform_params import TransformParams
from refine.models.classifier import Classifier, ClassifierCard


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
    def new_head(self, classes: int) -> nn.Module:
        """A head as `begin` gives it, with other weights: float [N, D] to logits float [N, K]."""

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
        for module in self.encoder():
            module.requires_grad_(False)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; a frozen encoder stays in eval mode whatever happens."""
        super().train(mode)
        if self._frozen:
            for module in self.encoder():
                module.eval()
        return self


def built(params: TransformParams, card: ClassifierCard) -> Transform:
    """A freshly initialized transform (from torch's global random state).

    Args:
        params: its name and settings.
        card: of the classifier that it is for.

    Raises:
        UserError: it cannot be built for this classifier.
    """
    return cast(Transform, cast(ModuleType, part(TRANSFORMS, params.name, TRANSFORM)).build(params, card))
