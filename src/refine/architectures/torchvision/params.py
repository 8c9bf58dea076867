"""Settings of the networks of torchvision."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from refine.models.architecture import Architecture

VIT_SMALL = "vit_small"
"""The size of the vision transformer in REFINE's released code: 6 layers of width 512, 8 heads."""


class Params(Architecture):
    """Attributes:
    model: what `torchvision.models` calls it, such as `vgg16_bn`, or `VIT_SMALL`.
    small_stem: whether it is built for small images such as those of CIFAR-10: ResNets and DenseNets with a first
        convolution of 3x3 at stride 1 and no max pooling after it, VGG with a single linear layer, vision transformers
        with patches of an eighth of the side.
    """

    name: Literal["torchvision"] = "torchvision"
    model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
    small_stem: bool = False

    @model_validator(mode="after")
    def _refuse_large_patches(self) -> Self:
        if self.model == VIT_SMALL and not self.small_stem:
            raise ValueError(f"{VIT_SMALL} is for small images; set small_stem to true")
        return self
