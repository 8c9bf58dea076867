"""The card of a REFINE defense's folder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from refine.core.bounds import MOST_CLASSES, MOST_SNAPSHOTS, Epochs
from refine.core.strict import Strict
from refine.defenses.refine.model.transform_params import TransformParams
from refine.models.card import Card, Sha256

InputSpace = Literal["normalized_clamp01", "pixel"]


class Snapshot(Strict):
    """A state of the transform during training: after which epoch, its file in `snapshots`, its sum."""

    epoch: Epochs
    file: Annotated[str, Field(pattern=r"^snapshots/epoch-\d{4,6}\.safetensors$")]
    sha256: Sha256


class RefineCard(Card):
    """Card of a REFINE defense.

    Attributes:
        transform: its name and settings; `first_channels` of version 0.1.0 means those of the U-Net.
        input_space: what the transform sees and where its output is clamped.
        permutation_direction: how the stored permutation is meant.
        num_classes: K.
        classifier_sha256: of the weights of the classifier that it was trained for.
        snapshots: states kept for the curves, the last one equal to the weights.
        encoder_head_sha256: of `encoder_head.safetensors`, the head under which the encoder learned; None where the
            encoder was not trained alone, or went on learning afterwards, so that the head no longer belongs to it.
    """

    kind: Literal["refine"] = "refine"
    transform: SerializeAsAny[TransformParams]
    input_space: InputSpace
    permutation_direction: Literal["probability of class j moves to class permutation[j]"] = (
        "probability of class j moves to class permutation[j]"
    )
    num_classes: Annotated[int, Field(ge=2, le=MOST_CLASSES)]
    classifier_sha256: Sha256
    snapshots: Annotated[list[Snapshot], Field(min_length=1, max_length=MOST_SNAPSHOTS)]
    encoder_head_sha256: Sha256 | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_first_version(cls, content: Any) -> Any:
        if isinstance(content, dict) and "first_channels" in content and "transform" not in content:
            content = {**content, "transform": {"name": "unet", "first_channels": content["first_channels"]}}
            del content["first_channels"]
        return content
