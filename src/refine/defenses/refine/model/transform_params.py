"""Settings of a transform, found by its name in parameters and cards."""

from __future__ import annotations

from typing import ClassVar

from refine.core.registry import TRANSFORMS
from refine.models.chosen import Chosen


class TransformParams(Chosen):
    """Attributes:
    name: of a folder in `transforms`, whose own settings stand beside it.
    takes_pixels: whether it takes nothing but pixels, and normalizes them itself where it has to.
    has_classifier_features: whether its encoder has the classifier's architecture, and so as many features.
    """

    room: ClassVar[str] = TRANSFORMS
    example: ClassVar[str] = "{name: unet}"
    takes_pixels: ClassVar[bool] = False
    has_classifier_features: ClassVar[bool] = False

    @property
    def copies_weights(self) -> bool:
        """Whether it begins with weights of the network that it is trained through."""
        return False
