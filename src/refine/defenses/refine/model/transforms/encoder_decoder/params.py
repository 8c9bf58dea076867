"""Settings of the transform whose encoder is a network of the classifier's architecture."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from refine.core.bounds import Width
from refine.core.params import Share
from refine.defenses.refine.model.transform_params import TransformParams


class Params(TransformParams):
    """Attributes:
    start: the encoder's first weights, new ones (`fresh`), or the classifier's (`from_classifier`), with which more or
        less of a backdoor comes along.
    replaced: share of the classifier's weights that is then replaced by new ones, for groups of layers from the input
        on, without the head; other numbers of groups take them by their relative depth, interpolated.
    replaced_in_head: share in the head, under which the encoder learns, and which is no part of the transform.
    channels: of the decoder's first maps; those of each further size are half as many.
    """

    takes_pixels: ClassVar[bool] = True
    has_classifier_features: ClassVar[bool] = True

    name: Literal["encoder_decoder"] = "encoder_decoder"
    start: Literal["fresh", "from_classifier"] = "fresh"
    replaced: Annotated[list[Share], Field(min_length=1, max_length=100)] = Field(default=[0.0, 0.5, 1.0])
    replaced_in_head: Share = 1.0
    channels: Width = 128

    @property
    def copies_weights(self) -> bool:
        return self.start == "from_classifier"
